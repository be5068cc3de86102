#include "clients/cli/value_checks.h"

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace ratequant::cli {
namespace {

constexpr char kChoiceName[] = "choice";

}  // namespace

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

CLI::Validator TokenCount() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        absl::string_view digits = text;
        const uint64_t unit = absl::ConsumeSuffix(&digits, "k") ? 1024 : 1;
        uint32_t value = 0;
        if (!absl::SimpleAtoi(digits, &value) || value == 0 ||
            value * unit > std::numeric_limits<uint32_t>::max()) {
          return absl::StrCat("'", text,
                              "' is not a number of tokens above 0, such as "
                              "4096 or 32k (k is 1,024)");
        }
        text = absl::StrCat(value * unit);
        return "";
      },
      "");
}

CLI::Validator MemorySize() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        const std::pair<const char*, int> units[] = {
            {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
        for (const auto& [unit, shift] : units) {
          absl::string_view number = text;
          double value = 0;
          if (!absl::ConsumeSuffix(&number, unit) ||
              !absl::SimpleAtod(number, &value)) {
            continue;
          }
          const double bytes = std::ldexp(value, shift);
          if (!(bytes >= 0 && bytes < 0x1p63)) break;
          text = absl::StrCat(static_cast<int64_t>(bytes));
          return "";
        }
        return absl::StrCat("'", text,
                            "' is not an amount of memory: write a number, 0 "
                            "or more, and KiB, MiB, GiB or TiB (powers of "
                            "1,024), such as 80GiB");
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

CLI::Validator TrueOrFalse() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        bool value = false;
        if (absl::SimpleAtob(text, &value)) return "";
        return absl::StrCat("'", text, "' is not true or false");
      },
      "");
}

CLI::Validator ReadableFile() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        if (std::ifstream(text).good()) return "";
        return absl::StrCat("cannot open ", text, ": ", std::strerror(errno));
      },
      "");
}

CLI::Validator UniversalTime() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        for (const char* form :
             {"%Y-%m-%d", "%Y-%m-%d %H:%M", absl::RFC3339_sec}) {
          absl::Time time;
          std::string why;
          if (absl::ParseTime(form, text, &time, &why)) {
            text = absl::StrCat(absl::ToUnixSeconds(time));
            return "";
          }
        }
        return absl::StrCat("'", text,
                            "' is not a time, such as 2026-11-24, '2026-11-24 "
                            "08:04' or 2026-11-24T08:04:00Z");
      },
      "");
}

CLI::Validator Choice(const std::map<std::string, int>& choices) {
  const std::string names = absl::StrJoin(
      choices, ", ",
      [](std::string* out, const auto& choice) { *out += choice.first; });
  return CLI::Validator(
      [choices, names](std::string& text) -> std::string {
        auto found = choices.find(text);
        if (found == choices.end()) {
          return absl::StrCat("'", text, "' is not one of ", names);
        }
        text = absl::StrCat(found->second);
        return "";
      },
      names, kChoiceName);
}

std::vector<std::string> ChoicesOf(const CLI::Option& option) {
  try {
    // Only reads; CLI11 has no const way to a validator.
    return absl::StrSplit(const_cast<CLI::Option&>(option)
                              .get_validator(kChoiceName)
                              ->get_description(),
                          ", ");
  } catch (const CLI::OptionNotFound&) {
    return {};
  }
}

}  // namespace ratequant::cli
