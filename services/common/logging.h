#ifndef RATEQUANT_SERVICES_COMMON_LOGGING_H_
#define RATEQUANT_SERVICES_COMMON_LOGGING_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ratequant {

// Makes spdlog's default logger write to standard error, one line a message.
// `format` is "text",
//   2025-01-31T12:00:00.123Z info  ratequant-worker: MESSAGE request_id=ID
// or "json", an object with "time", "level", "program", "message" and, where
// they are known, "request_id", "trace_id", "span_id" of the call that the
// thread works on (trace.h: CallScope), and the LogFields.
//
// `level` is one of trace, debug, info, warning, error, off. Anything else, of
// either, is INVALID_ARGUMENT. Call once, before threads start.
absl::Status InitLogging(absl::string_view program, absl::string_view level,
                         absl::string_view format);

// The newest warnings and errors, at most 50, as they were written, oldest
// first. Thread-safe.
std::vector<std::string> RecentProblems();

// While it lives, JSON lines of this thread have these fields too; empty texts
// are left out. Scopes of one thread nest, and only the inner one counts.
class LogFields {
 public:
  using Texts = std::vector<std::pair<std::string, std::string>>;
  using Numbers = std::vector<std::pair<std::string, double>>;

  explicit LogFields(Texts texts, Numbers numbers = {});
  ~LogFields();
  LogFields(const LogFields&) = delete;
  LogFields& operator=(const LogFields&) = delete;

  const Texts& texts() const { return texts_; }
  const Numbers& numbers() const { return numbers_; }

 private:
  const Texts texts_;
  const Numbers numbers_;
  const LogFields* const outer_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_LOGGING_H_
