#ifndef RATEQUANT_SERVICES_ALLOCATION_PAGE_TOKEN_H_
#define RATEQUANT_SERVICES_ALLOCATION_PAGE_TOKEN_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::allocation {

// Page tokens carry the last key of a page and are bound to the request they
// belong to. All functions are thread-safe.

// `scope` names the request (the method and what may not change from page to
// page).
std::string MakePageToken(absl::string_view scope, absl::string_view last_key);

// The key in `token`; "" for an empty token. INVALID_ARGUMENT
// (INVALID_PAGE_TOKEN) when it isn't a token of `scope`.
absl::StatusOr<std::string> ParsePageToken(absl::string_view scope,
                                           absl::string_view token);

// Most entries of a page: 50 for 0, at most 1000. INVALID_ARGUMENT
// (INVALID_PAGE_SIZE) when negative.
absl::StatusOr<int> PageSize(int requested);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_PAGE_TOKEN_H_
