#ifndef RATEQUANT_CLIENTS_CLI_INTERRUPT_WATCHER_H_
#define RATEQUANT_CLIENTS_CLI_INTERRUPT_WATCHER_H_

#include <csignal>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"

namespace ratequant::cli {

// While it lives, SIGINT, SIGTERM and SIGHUP call a function, on a thread of
// its own, where locks and gRPC may be used. A second signal ends the process
// with code 130 at once. Signals that were ignored stay ignored.
//
// Make it before anything starts threads: they inherit the signal mask.
class InterruptWatcher {
 public:
  static absl::StatusOr<std::unique_ptr<InterruptWatcher>> Start(
      std::function<void()> on_interrupt);

  ~InterruptWatcher();
  InterruptWatcher(const InterruptWatcher&) = delete;
  InterruptWatcher& operator=(const InterruptWatcher&) = delete;

 private:
  InterruptWatcher() = default;
  void Watch();

  std::function<void()> on_interrupt_;
  sigset_t previous_mask_ = {};
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_INTERRUPT_WATCHER_H_
