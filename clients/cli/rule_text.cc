#include "clients/cli/rule_text.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cli/exit_code.h"

namespace ratequant::cli {
namespace {

constexpr char kParts[] =
    "layer=N, head=N, tensor=key|value, min=BITS, max=BITS, width=BITS";

bool ParseNumber(absl::string_view text, uint32_t* number) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, number);
}

}  // namespace

absl::StatusOr<v1::GroupRule> RuleFromText(absl::string_view text) {
  const auto mistake = [text](const std::string& what) {
    return UsageError(absl::StrCat("--rule ", text, ": ", what));
  };
  v1::GroupRule rule;
  std::set<std::string> seen;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> split =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    const auto [key, value] = split;
    if (!seen.insert(std::string(key)).second) {
      return mistake(absl::StrCat("'", key, "' is given twice"));
    }
    if (key == "tensor") {
      if (value != "key" && value != "value") {
        return mistake(
            absl::StrCat("tensor '", value, "' is not one of key, value"));
      }
      rule.set_tensor(value == "key" ? v1::GroupRule::KEY
                                     : v1::GroupRule::VALUE);
      continue;
    }
    const bool bits = key == "min" || key == "max" || key == "width";
    if (!bits && key != "layer" && key != "head") {
      return mistake(absl::StrCat("'", part, "' is not one of ", kParts));
    }
    uint32_t number = 0;
    if (!ParseNumber(value, &number) || (bits && number == 0)) {
      return mistake(absl::StrCat(key, " '", value, "' is not a whole number, ",
                                  bits ? "1 or more" : "0 or more"));
    }
    if (key == "layer") rule.set_layer(number);
    if (key == "head") rule.set_kv_head(number);
    if (key == "min" || key == "width") rule.set_min_width(number);
    if (key == "max" || key == "width") rule.set_max_width(number);
  }
  const bool range = seen.count("min") + seen.count("max") > 0;
  if (range == (seen.count("width") > 0)) {
    return mistake(range ? "give width, or min and max, not both"
                         : "give min, max or width");
  }
  return rule;
}

}  // namespace ratequant::cli
