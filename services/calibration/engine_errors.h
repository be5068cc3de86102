#ifndef RATEQUANT_SERVICES_CALIBRATION_ENGINE_ERRORS_H_
#define RATEQUANT_SERVICES_CALIBRATION_ENGINE_ERRORS_H_

// What can go wrong with a capture engine, as the errors of CalibrationService.
// `last_words` is the end of the engine's standard error, possibly empty; what
// fits of it ends the message. All functions are pure.

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/calibration/engine_message.h"
#include "services/calibration/engine_process.h"

namespace ratequant::calibration {

// INTERNAL ENGINE_ERROR: it broke the protocol.
absl::Status EngineViolation(absl::string_view what,
                             const std::string& last_words);

// INTERNAL ENGINE_ERROR: there is nothing to run.
absl::Status EngineNotStarted(const absl::Status& why);

// ABORTED ENGINE_OUT_OF_MEMORY: the worker has no memory to share with it.
absl::Status EngineWithoutMemory(const absl::Status& why);

// The engine's own `error`, with the code that belongs to its reason; a reason
// that isn't known is an ENGINE_ERROR.
absl::Status EngineReported(const ErrorMessage& error);

// It ended before 'done'. ABORTED: ENGINE_OUT_OF_MEMORY when it was killed,
// else ENGINE_CRASHED.
absl::Status EngineDied(const ProcessExit& exit, const std::string& last_words);

// DEADLINE_EXCEEDED ENGINE_HUNG. `what` it did for `time`: "said nothing".
absl::Status EngineHung(absl::string_view what, absl::Duration time,
                        const std::string& last_words);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_ENGINE_ERRORS_H_
