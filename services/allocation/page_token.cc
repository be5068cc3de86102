#include "services/allocation/page_token.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/common/canonical.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

constexpr size_t kBindingLength = 16;
constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;

// Not a secret: it finds mistakes, such as a token of another parent.
std::string Binding(absl::string_view scope, absl::string_view key) {
  return Sha256Hex(absl::StrCat(scope, "\n", key)).substr(0, kBindingLength);
}

}  // namespace

std::string MakePageToken(absl::string_view scope, absl::string_view last_key) {
  return absl::WebSafeBase64Escape(
      absl::StrCat(Binding(scope, last_key), last_key));
}

absl::StatusOr<std::string> ParsePageToken(absl::string_view scope,
                                           absl::string_view token) {
  if (token.empty()) return std::string();
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) &&
      text.size() > kBindingLength) {
    const std::string key = text.substr(kBindingLength);
    if (Binding(scope, key) == text.substr(0, kBindingLength)) return key;
  }
  return FieldError("INVALID_PAGE_TOKEN", "page_token",
                    "isn't a next_page_token of this request; start again "
                    "without one");
}

absl::StatusOr<int> PageSize(int requested) {
  if (requested < 0) {
    return FieldError(
        "INVALID_PAGE_SIZE", "page_size",
        absl::StrCat("is ", requested, "; use 0 to ", kMaxPageSize));
  }
  return requested == 0 ? kDefaultPageSize : std::min(requested, kMaxPageSize);
}

}  // namespace ratequant::allocation
