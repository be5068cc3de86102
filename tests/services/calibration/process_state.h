#ifndef RATEQUANT_TESTS_SERVICES_CALIBRATION_PROCESS_STATE_H_
#define RATEQUANT_TESTS_SERVICES_CALIBRATION_PROCESS_STATE_H_

#include <sys/types.h>

#include <string>

#include "absl/time/time.h"

namespace ratequant::calibration {

// What this process holds: descriptors and mappings of a capture's memory, and
// ends of pipes.
int OpenMemoryFiles();
int OpenPipes();

// A process's state as in ps; "X" when it is gone.
std::string StateOf(pid_t pid);

// Whether a process has been reaped.
bool IsGone(pid_t pid);

// Whether a process dies within `time`; a zombie that isn't ours counts.
bool EndsWithin(pid_t pid, absl::Duration time);

// The number in a file that another process writes; -1 when it isn't there
// within `time`.
int WaitForNumber(const std::string& path, absl::Duration time);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_TESTS_SERVICES_CALIBRATION_PROCESS_STATE_H_
