#include "services/calibration/engine_errors.h"

#include <signal.h>

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

using absl::StatusCode;

// Errors are cut to 1 KiB on the wire: the last lines have to fit.
constexpr size_t kLastWords = 600;
// What a shell answers for a child that died by SIGKILL.
constexpr int kShellKilled = 128 + SIGKILL;

std::string LastWords(const std::string& words) {
  if (words.empty()) return "";
  const bool cut = words.size() > kLastWords;
  return absl::StrCat("; its last words: ", cut ? "..." : "",
                      cut ? words.substr(words.size() - kLastWords) : words);
}

bool KilledFromOutside(const ProcessExit& exit) {
  return exit.by_signal ? exit.code == SIGKILL : exit.code == kShellKilled;
}

}  // namespace

absl::Status EngineViolation(absl::string_view what,
                             const std::string& last_words) {
  return MakeError(StatusCode::kInternal, "ENGINE_ERROR",
                   absl::StrCat("the capture engine broke the protocol: ", what,
                                LastWords(last_words)));
}

absl::Status EngineNotStarted(const absl::Status& why) {
  return MakeError(
      StatusCode::kInternal, "ENGINE_ERROR",
      absl::StrCat("cannot start the capture engine: ", why.message()));
}

absl::Status EngineWithoutMemory(const absl::Status& why) {
  return MakeError(StatusCode::kAborted, "ENGINE_OUT_OF_MEMORY", why.message());
}

absl::Status EngineReported(const ErrorMessage& error) {
  const std::string& reason = error.reason;
  if (reason == "MODEL_UNREADABLE" || reason == "UNSUPPORTED_MODEL") {
    return MakeError(StatusCode::kFailedPrecondition, reason, error.message);
  }
  if (reason == "TEXT_EMPTY" || reason == "TEXT_TOO_SHORT") {
    return FieldError(reason, "text", error.message);
  }
  if (reason == "ENGINE_OUT_OF_MEMORY") {
    return MakeError(
        StatusCode::kAborted, reason,
        absl::StrCat("the capture engine ran out of memory: ", error.message));
  }
  return MakeError(StatusCode::kInternal, "ENGINE_ERROR",
                   absl::StrCat("the capture engine failed (", reason,
                                "): ", error.message));
}

absl::Status EngineDied(const ProcessExit& exit,
                        const std::string& last_words) {
  if (KilledFromOutside(exit)) {
    return MakeError(
        StatusCode::kAborted, "ENGINE_OUT_OF_MEMORY",
        absl::StrCat("the capture engine was killed by the system (",
                     exit.ToString(), "), most likely out of memory",
                     LastWords(last_words)));
  }
  return MakeError(StatusCode::kAborted, "ENGINE_CRASHED",
                   absl::StrCat("the capture engine ended early with ",
                                exit.ToString(), LastWords(last_words)));
}

absl::Status EngineHung(absl::string_view what, absl::Duration time,
                        const std::string& last_words) {
  return MakeError(StatusCode::kDeadlineExceeded, "ENGINE_HUNG",
                   absl::StrCat("the capture engine ", what, " for ",
                                absl::FormatDuration(time), " and was killed",
                                LastWords(last_words)));
}

}  // namespace ratequant::calibration
