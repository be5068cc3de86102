#ifndef RATEQUANT_SERVICES_CALIBRATION_WORDS_H_
#define RATEQUANT_SERVICES_CALIBRATION_WORDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::calibration {

// Splits a command into words the way a shell does: blanks separate, '...' and
// "..." keep blanks, a backslash takes the next character as it is (inside
// "..." only before " and \). Nothing is expanded. INVALID_ARGUMENT for a quote
// or backslash without its end.
absl::StatusOr<std::vector<std::string>> SplitWords(absl::string_view command);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_WORDS_H_
