#ifndef RATEQUANT_SERVICES_CALIBRATION_SPAWN_H_
#define RATEQUANT_SERVICES_CALIBRATION_SPAWN_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ratequant::calibration {

// A started child and our ends of its pipes (non-blocking, close-on-exec),
// owned by the caller.
struct SpawnedProcess {
  pid_t pid = -1;
  int stdin_fd = -1;   // write end
  int stdout_fd = -1;  // read end
  int stderr_fd = -1;  // read end
};

// Starts `command` (program and arguments; the program is looked up in PATH) in
// a process group of its own, with default signal handling and no descriptor
// but its three pipes. The kernel kills it when the calling thread ends.
// NOT_FOUND when there is no such program, else the system's error.
absl::StatusOr<SpawnedProcess> Spawn(const std::vector<std::string>& command);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_SPAWN_H_
