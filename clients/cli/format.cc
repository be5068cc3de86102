#include "clients/cli/format.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ratequant::cli {

std::string FormatCount(uint64_t count) {
  std::string digits = absl::StrCat(count);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string FormatFixed(double value, int decimals) {
  return absl::StrFormat("%.*f", decimals, value);
}

std::string FormatSignificant(double value, int digits) {
  if (value == 0) return "0";
  if (!std::isfinite(value)) return absl::StrFormat("%g", value);
  std::string scientific = absl::StrFormat("%.*e", digits - 1, value);
  // The exponent after rounding: 0.9996 with three digits is 1.00.
  int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= 6) return scientific;
  return FormatFixed(value, std::max(0, digits - 1 - exponent));
}

std::string FormatPercent(double fraction) {
  double percent = 100 * fraction;
  bool small = percent != 0 && std::abs(percent) < 0.95;
  return absl::StrCat(FormatFixed(percent, small ? 1 : 0), "%");
}

std::string FormatBytes(int64_t bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return absl::StrFormat("%.4g %s", value, units[unit]);
}

std::string FormatTimeSpan(absl::Duration duration) {
  int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  if (seconds < 60) return absl::StrFormat("%d s", seconds);
  if (seconds < 3600) {
    return absl::StrFormat("%d min %02d s", seconds / 60, seconds % 60);
  }
  return absl::StrFormat("%d h %02d min", seconds / 3600, seconds / 60 % 60);
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

std::string FormatTimestamp(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M",
                          absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string ShortId(const std::string& id) {
  if (id.size() != 64) return id;
  for (char c : id) {
    if (!absl::ascii_isxdigit(c)) return id;
  }
  return id.substr(0, 12);
}

}  // namespace ratequant::cli
