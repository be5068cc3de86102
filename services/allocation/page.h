#ifndef RATEQUANT_SERVICES_ALLOCATION_PAGE_H_
#define RATEQUANT_SERVICES_ALLOCATION_PAGE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/allocation/page_token.h"
#include "services/allocation/store/store.h"
#include "services/common/status.h"

namespace ratequant::allocation {

// A page of the rows below a prefix, parsed, that `matches` lets through, in
// the order of their keys. A token carries the last row's key: rows written or
// deleted between two pages move no other row from one page to another.
//
// `scope` is what a token is bound to (see page_token.h); `rows` gives the
// repeated field of a response. Errors: PageSize's, ParsePageToken's, the
// store's, DATA_LOSS (STORE_CORRUPT) for a row that can't be parsed.
template <typename Response, typename Rows, typename Matches>
absl::StatusOr<Response> ListRows(const Store& store, Table table,
                                  const std::string& prefix,
                                  const std::string& scope, int page_size,
                                  const std::string& page_token, Rows rows,
                                  Matches matches) {
  const absl::StatusOr<int> size = PageSize(page_size);
  if (!size.ok()) return size.status();
  const absl::StatusOr<std::string> after = ParsePageToken(scope, page_token);
  if (!after.ok()) return after.status();
  Response response;
  auto* out = rows(&response);
  std::string last, damaged;
  bool more = false;
  absl::Status scanned =
      store.Scan(table, prefix, *after,
                 [&](absl::string_view key, absl::string_view value) {
                   auto* row = out->Add();
                   if (!row->ParseFromArray(value.data(),
                                            static_cast<int>(value.size()))) {
                     damaged = std::string(key);
                     return false;
                   }
                   const bool listed = matches(*row);
                   more = listed && out->size() > *size;
                   if (listed && !more) {
                     last = std::string(key);
                   } else {
                     out->RemoveLast();
                   }
                   return !more;
                 });
  if (!scanned.ok()) return scanned;
  if (!damaged.empty()) {
    return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                     absl::StrCat("stored data is damaged: ", damaged));
  }
  if (more) response.set_next_page_token(MakePageToken(scope, last));
  return response;
}

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_PAGE_H_
