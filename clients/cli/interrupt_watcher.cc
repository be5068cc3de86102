#include "clients/cli/interrupt_watcher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "clients/cli/exit_code.h"

namespace ratequant::cli {
namespace {

sigset_t WatchedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    bool ignored = sigaction(number, nullptr, &action) == 0 &&
                   action.sa_handler == SIG_IGN;
    if (!ignored) sigaddset(&set, number);
  }
  return set;
}

}  // namespace

absl::StatusOr<std::unique_ptr<InterruptWatcher>> InterruptWatcher::Start(
    std::function<void()> on_interrupt) {
  std::unique_ptr<InterruptWatcher> watcher(new InterruptWatcher());
  watcher->on_interrupt_ = std::move(on_interrupt);
  sigset_t set = WatchedSignals();
  watcher->signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  watcher->stop_fd_ = eventfd(0, EFD_CLOEXEC);
  if (watcher->signal_fd_ < 0 || watcher->stop_fd_ < 0) {
    return absl::ErrnoToStatus(errno, "cannot watch for signals");
  }
  pthread_sigmask(SIG_BLOCK, &set, &watcher->previous_mask_);
  watcher->thread_ = std::thread([w = watcher.get()] { w->Watch(); });
  return watcher;
}

InterruptWatcher::~InterruptWatcher() {
  if (thread_.joinable()) {
    eventfd_write(stop_fd_, 1);
    thread_.join();
    pthread_sigmask(SIG_SETMASK, &previous_mask_, nullptr);
  }
  if (signal_fd_ >= 0) close(signal_fd_);
  if (stop_fd_ >= 0) close(stop_fd_);
}

void InterruptWatcher::Watch() {
  for (int signals = 0;;) {
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;  // EINTR
    if (fds[1].revents != 0) return;
    signalfd_siginfo info = {};
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    if (++signals > 1) _exit(kExitInterrupted);
    on_interrupt_();
  }
}

}  // namespace ratequant::cli
