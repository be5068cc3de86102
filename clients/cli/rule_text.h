#ifndef RATEQUANT_CLIENTS_CLI_RULE_TEXT_H_
#define RATEQUANT_CLIENTS_CLI_RULE_TEXT_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/v1/bit_map.pb.h"

namespace ratequant::cli {

// The rule of a text like "layer=0,head=1,tensor=key,min=4,max=8" or
// "layer=0,width=8": each part at most once, in any order; width=N is both
// min=N and max=N. A usage error names the part that isn't understood and what
// is; whether layers, heads and widths exist is the server's to say.
absl::StatusOr<v1::GroupRule> RuleFromText(absl::string_view text);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_RULE_TEXT_H_
