#ifndef RATEQUANT_SERVICES_COMMON_LOGGING_H_
#define RATEQUANT_SERVICES_COMMON_LOGGING_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ratequant {

// Makes spdlog's default logger write to standard error, one line a message:
// "2025-01-31T12:00:00.123Z info  ratequant-worker: text". `level` is one of
// trace, debug, info, warning, error, off; anything else is INVALID_ARGUMENT.
// Call once, before threads start.
absl::Status InitLogging(absl::string_view program, absl::string_view level);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_LOGGING_H_
