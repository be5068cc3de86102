#include "services/calibration/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ratequant::calibration {
namespace {

// A descriptor closed at the end of its scope.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read;
  Fd write;
};

// Both ends are above 2, so that the child's dup2 calls can't collide even when
// the worker was started with closed standard descriptors.
absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  Fd low_read(ends[0]), low_write(ends[1]);
  Pipe pipe{Fd(fcntl(ends[0], F_DUPFD_CLOEXEC, 3)),
            Fd(fcntl(ends[1], F_DUPFD_CLOEXEC, 3))};
  if (pipe.read.get() < 0 || pipe.write.get() < 0) {
    return absl::ErrnoToStatus(errno, "F_DUPFD_CLOEXEC");
  }
  return pipe;
}

bool IsProgram(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         access(path.c_str(), X_OK) == 0;
}

// Looked up before the fork: after it only async-signal-safe calls are allowed.
absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (absl::StrContains(name, "/")) {
    if (IsProgram(name)) return name;
    return absl::NotFoundError(absl::StrCat("'", name, "' is not a program"));
  }
  const char* path = getenv("PATH");
  for (absl::string_view folder :
       absl::StrSplit(path == nullptr ? "/usr/bin:/bin" : path, ':')) {
    std::string candidate =
        absl::StrCat(folder.empty() ? "." : folder, "/", name);
    if (IsProgram(candidate)) return candidate;
  }
  return absl::NotFoundError(
      absl::StrCat("there is no program '", name, "' in PATH"));
}

// Everything the child needs, made before the fork.
struct ChildPlan {
  const char* program;
  char* const* argv;
  pid_t parent;
  int stdin_fd;
  int stdout_fd;
  int stderr_fd;
  int report_fd;
};

// Runs in the child between fork and exec: async-signal-safe calls only.
[[noreturn]] void RunChild(const ChildPlan& plan) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before prctl.
  if (getppid() != plan.parent) _exit(127);
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (dup2(plan.stdin_fd, 0) == 0 && dup2(plan.stdout_fd, 1) == 1 &&
      dup2(plan.stderr_fd, 2) == 2 &&
      close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) {
    execv(plan.program, plan.argv);
  }
  const int error = errno;
  [[maybe_unused]] ssize_t n = write(plan.report_fd, &error, sizeof(error));
  _exit(127);
}

// Forks with all signals blocked, so that no handler of the parent runs in the
// child.
pid_t ForkChild(const ChildPlan& plan) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) RunChild(plan);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

// 0 once the child has become the program, else the errno that stopped it.
int ReadExecError(int report_fd) {
  int error = 0;
  ssize_t n;
  do {
    n = read(report_fd, &error, sizeof(error));
  } while (n < 0 && errno == EINTR);
  return n == sizeof(error) ? error : 0;
}

void Reap(pid_t pid) {
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

int NonBlocking(Fd& fd) {
  fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return fd.release();
}

}  // namespace

absl::StatusOr<SpawnedProcess> Spawn(const std::vector<std::string>& command) {
  if (command.empty()) return absl::InvalidArgumentError("an empty command");
  auto program = FindProgram(command[0]);
  if (!program.ok()) return program.status();
  Pipe pipes[4];  // stdin, stdout, stderr, exec report
  for (Pipe& pipe : pipes) {
    auto made = MakePipe();
    if (!made.ok()) return made.status();
    pipe = *std::move(made);
  }
  std::vector<char*> argv;
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);

  const pid_t pid = ForkChild({program->c_str(), argv.data(), getpid(),
                               pipes[0].read.get(), pipes[1].write.get(),
                               pipes[2].write.get(), pipes[3].write.get()});
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  // Also from here: a kill of the group may come before the child's own call.
  setpgid(pid, pid);
  pipes[3].write = Fd();
  if (const int error = ReadExecError(pipes[3].read.get()); error != 0) {
    Reap(pid);
    return absl::ErrnoToStatus(error, absl::StrCat("starting ", *program));
  }
  return SpawnedProcess{pid, NonBlocking(pipes[0].write),
                        NonBlocking(pipes[1].read), NonBlocking(pipes[2].read)};
}

}  // namespace ratequant::calibration
