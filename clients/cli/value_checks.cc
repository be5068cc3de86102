#include "clients/cli/value_checks.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ratequant::cli {

CLI::Validator WholeNumber() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        uint32_t value = 0;
        if (absl::SimpleAtoi(text, &value)) return "";
        return absl::StrCat("'", text, "' is not a whole number, 0 or more");
      },
      "");
}

CLI::Validator Number() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        double value = 0;
        if (absl::SimpleAtod(text, &value)) return "";
        return absl::StrCat("'", text, "' is not a number");
      },
      "");
}

CLI::Validator PositiveSeconds() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        double seconds = 0;
        bool number = absl::SimpleAtod(text, &seconds);
        if (number && seconds > 0 && std::isfinite(seconds)) return "";
        return absl::StrCat("'", text, "' is not a number of seconds above 0");
      },
      "");
}

CLI::Validator Choice(const std::map<std::string, int>& choices) {
  return CLI::Validator(
      [choices](std::string& text) -> std::string {
        auto found = choices.find(text);
        if (found == choices.end()) {
          return absl::StrCat(
              "'", text, "' is not one of ",
              absl::StrJoin(choices, ", ", [](std::string* out, const auto& c) {
                *out += c.first;
              }));
        }
        text = absl::StrCat(found->second);
        return "";
      },
      "");
}

}  // namespace ratequant::cli
