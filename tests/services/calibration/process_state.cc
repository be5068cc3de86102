#include "tests/services/calibration/process_state.h"

#include <errno.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;

int CountDescriptors(const std::string& prefix) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string target = fs::read_symlink(entry.path(), gone).string();
    if (target.rfind(prefix, 0) == 0) ++count;
  }
  return count;
}

}  // namespace

int OpenMemoryFiles() {
  int count = CountDescriptors("/memfd:ratequant");
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:ratequant") != std::string::npos) ++count;
  }
  return count;
}

int OpenPipes() { return CountDescriptors("pipe:"); }

std::string StateOf(pid_t pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string skip, state;
  stat >> skip >> skip >> state;
  return stat ? state : "X";
}

bool IsGone(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH; }

bool EndsWithin(pid_t pid, absl::Duration time) {
  const absl::Time deadline = absl::Now() + time;
  while (absl::Now() < deadline) {
    const std::string state = StateOf(pid);
    if (state == "Z" || state == "X") return true;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return false;
}

int WaitForNumber(const std::string& path, absl::Duration time) {
  const absl::Time deadline = absl::Now() + time;
  while (absl::Now() < deadline) {
    int number = 0;
    if (std::ifstream(path) >> number) return number;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return -1;
}

}  // namespace ratequant::calibration
