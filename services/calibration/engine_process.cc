#include "services/calibration/engine_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/calibration/engine_message.h"

namespace ratequant::calibration {
namespace {

constexpr size_t kStderrKept = 4096;
// How often a death is looked for that closed no pipe (a grandchild may hold
// them open).
constexpr absl::Duration kTick = absl::Milliseconds(100);

void Close(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

// write() that reports a closed pipe as EPIPE instead of killing the process:
// SIGPIPE is blocked for this thread and taken off its pending set.
ssize_t WriteQuietly(int fd, const char* data, size_t size) {
  sigset_t pipe_signal, before, pending;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t n = write(fd, data, size);
  const int error = errno;
  if (n < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE)) {
    const timespec now = {0, 0};
    while (sigtimedwait(&pipe_signal, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return n;
}

// Reads once into `buffer`. 0 at the end of file; -1 when nothing is there now.
ssize_t ReadSome(int fd, char* buffer, size_t size) {
  ssize_t n;
  do {
    n = read(fd, buffer, size);
  } while (n < 0 && errno == EINTR);
  const bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  return later ? -1 : std::max<ssize_t>(n, 0);
}

}  // namespace

std::string ProcessExit::ToString() const {
  if (!by_signal) return absl::StrCat("exit status ", code);
  return absl::StrCat("signal ", code, " (", strsignal(code), ")");
}

absl::StatusOr<std::unique_ptr<EngineProcess>> EngineProcess::Start(
    const std::vector<std::string>& command) {
  auto process = Spawn(command);
  if (!process.ok()) return process.status();
  return std::unique_ptr<EngineProcess>(new EngineProcess(*process));
}

EngineProcess::EngineProcess(const SpawnedProcess& process)
    : pid_(process.pid),
      stdin_(process.stdin_fd),
      stdout_(process.stdout_fd),
      stderr_(process.stderr_fd) {}

EngineProcess::~EngineProcess() {
  Kill();
  Close(stdin_);
  Close(stdout_);
  Close(stderr_);
}

absl::StatusOr<std::string> EngineProcess::ReadLine(absl::Duration patience,
                                                    const CancelToken& cancel) {
  const absl::Time deadline = absl::Now() + patience;
  for (;;) {
    absl::Status cancelled = cancel.status();
    if (!cancelled.ok()) return cancelled;
    if (absl::optional<std::string> line = TakeLine()) return *std::move(line);
    if (output_.size() >= kMaxEngineLine) {
      return absl::InvalidArgumentError(
          absl::StrCat("a message is longer than ", kMaxEngineLine, " bytes"));
    }
    if (stdout_ < 0) return absl::OutOfRangeError("the output has ended");
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat("no message within ", absl::FormatDuration(patience)));
    }
    Pump(left, cancel);
  }
}

absl::optional<std::string> EngineProcess::TryReadLine() {
  if (absl::optional<std::string> line = TakeLine()) return line;
  ReadOutput();
  ReadErrors();
  return TakeLine();
}

absl::Status EngineProcess::Write(absl::string_view line) {
  absl::StrAppend(&backlog_, line);
  Flush();
  if (backlog_.size() > kMaxBacklog) {
    return absl::ResourceExhaustedError(
        absl::StrCat(backlog_.size(), " bytes sent to it are unread"));
  }
  return absl::OkStatus();
}

absl::optional<ProcessExit> EngineProcess::WaitForExit(
    absl::Duration patience, const CancelToken& cancel) {
  const absl::Time deadline = absl::Now() + patience;
  Close(stdin_);
  for (;;) {
    NoticeExit();
    const absl::Duration left = deadline - absl::Now();
    if (exit_.has_value() || left <= absl::ZeroDuration() ||
        !cancel.status().ok()) {
      return exit_;
    }
    Pump(left, cancel);
    output_.clear();
  }
}

void EngineProcess::Kill() {
  if (exit_.has_value()) return;
  kill(-pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  exit_ = ProcessExit{true, SIGKILL};
  ReadErrors();
}

std::string EngineProcess::StderrTail() const {
  std::string tail = errors_;
  for (char& c : tail) {
    if (!absl::ascii_isprint(c) && c != '\n') c = c == '\t' ? ' ' : '?';
  }
  return std::string(absl::StripAsciiWhitespace(tail));
}

// Waits until something can be read or written, `cancel` is raised, or a tick
// has passed, and moves what there is.
void EngineProcess::Pump(absl::Duration wait, const CancelToken& cancel) {
  // poll ignores negative descriptors.
  pollfd fds[] = {{stdout_, POLLIN, 0},
                  {stderr_, POLLIN, 0},
                  {backlog_.empty() ? -1 : stdin_, POLLOUT, 0},
                  {cancel.fd(), POLLIN, 0}};
  const absl::Duration tick = std::min(wait, kTick);
  poll(fds, 4, static_cast<int>(absl::ToInt64Milliseconds(tick)) + 1);
  // Death is looked for before the pipes: what it wrote is then all there.
  NoticeExit();
  ReadOutput();
  ReadErrors();
  Flush();
  // A grandchild outside the group may hold the pipe open for ever.
  if (exit_.has_value()) Close(stdout_);
}

void EngineProcess::ReadOutput() {
  char buffer[16 * 1024];
  // One line beyond the limit is enough to see that it is too long; a living
  // process is read no faster than its lines are taken.
  while (stdout_ >= 0 &&
         (exit_.has_value() || output_.size() < kMaxEngineLine)) {
    const ssize_t n = ReadSome(stdout_, buffer, sizeof(buffer));
    if (n < 0) return;
    if (n == 0) return Close(stdout_);
    output_.append(buffer, n);
  }
}

void EngineProcess::ReadErrors() {
  char buffer[16 * 1024];
  while (stderr_ >= 0) {
    const ssize_t n = ReadSome(stderr_, buffer, sizeof(buffer));
    if (n < 0) return;
    if (n == 0) return Close(stderr_);
    errors_.append(buffer, n);
    if (errors_.size() > kStderrKept) {
      errors_.erase(0, errors_.size() - kStderrKept);
    }
  }
}

void EngineProcess::Flush() {
  while (stdin_ >= 0 && !backlog_.empty()) {
    const ssize_t n = WriteQuietly(stdin_, backlog_.data(), backlog_.size());
    if (n > 0) {
      backlog_.erase(0, n);
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return;
    } else {
      // It has closed its input: whatever comes of that shows on its output.
      backlog_.clear();
      Close(stdin_);
    }
  }
}

// Reaps the child when it has exited. The rest of its group is killed first,
// while the zombie still keeps the group's number from being used again.
void EngineProcess::NoticeExit() {
  if (exit_.has_value()) return;
  siginfo_t info = {};
  if (waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid == 0) {
    return;
  }
  kill(-pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  exit_ = ProcessExit{info.si_code != CLD_EXITED, info.si_status};
}

absl::optional<std::string> EngineProcess::TakeLine() {
  const size_t end = output_.find('\n');
  if (end == std::string::npos || end >= kMaxEngineLine) return absl::nullopt;
  std::string line = output_.substr(0, end);
  output_.erase(0, end + 1);
  return line;
}

}  // namespace ratequant::calibration
