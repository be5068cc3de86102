#ifndef RATEQUANT_SERVICES_CALIBRATION_ENGINE_PROCESS_H_
#define RATEQUANT_SERVICES_CALIBRATION_ENGINE_PROCESS_H_

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "services/calibration/cancel_token.h"
#include "services/calibration/spawn.h"

namespace ratequant::calibration {

// How a process ended.
struct ProcessExit {
  bool by_signal = false;
  int code = 0;  // the signal's number, or the exit status

  bool clean() const { return !by_signal && code == 0; }
  std::string ToString() const;  // "exit status 3", "signal 9 (Killed)"
};

// A child process that speaks lines over its standard input and output. It is
// the leader of its own process group, which dies with this object, and dies
// with the thread that started it: it never outlives the worker. Its standard
// error is drained whenever this object waits; the last bytes are kept.
//
// Thread-compatible; use it on the thread that called Start.
class EngineProcess {
 public:
  // Starts `command` (program and arguments; the program is looked up in PATH).
  // NOT_FOUND when there is no such program, else the system's error.
  static absl::StatusOr<std::unique_ptr<EngineProcess>> Start(
      const std::vector<std::string>& command);

  // Kills the process group and reaps the child.
  ~EngineProcess();

  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  // Waits for the next line, without its newline. Errors: `cancel`'s status;
  // DEADLINE_EXCEEDED when none was complete within `patience`; OUT_OF_RANGE
  // when the output has ended (the process exited or closed it);
  // INVALID_ARGUMENT for a line longer than kMaxEngineLine.
  absl::StatusOr<std::string> ReadLine(absl::Duration patience,
                                       const CancelToken& cancel);

  // The next line if it is already there; empty otherwise, whatever the reason.
  absl::optional<std::string> TryReadLine();

  // Queues a line for the process; never blocks. RESOURCE_EXHAUSTED when it
  // has left more than kMaxBacklog bytes unread. That the process is gone isn't
  // an error here: ReadLine tells.
  absl::Status Write(absl::string_view line);

  // Closes the standard input and waits for the process to exit. Empty when it
  // is still there after `patience` or `cancel` was raised.
  absl::optional<ProcessExit> WaitForExit(absl::Duration patience,
                                          const CancelToken& cancel);

  // Kills the whole group and reaps the child. May be called again.
  void Kill();

  // The end of what the process wrote to its standard error, as ASCII.
  std::string StderrTail() const;

  pid_t pid() const { return pid_; }

  static constexpr size_t kMaxBacklog = 64 * 1024;

 private:
  explicit EngineProcess(const SpawnedProcess& process);

  void Pump(absl::Duration wait, const CancelToken& cancel);
  void ReadOutput();
  void ReadErrors();
  void Flush();
  void NoticeExit();
  absl::optional<std::string> TakeLine();

  const pid_t pid_;
  int stdin_;  // -1 once closed, like the other two
  int stdout_;
  int stderr_;
  absl::optional<ProcessExit> exit_;  // set once the child is reaped
  std::string output_;                // read, not yet taken
  std::string backlog_;               // queued, not yet written
  std::string errors_;                // tail of standard error
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_ENGINE_PROCESS_H_
