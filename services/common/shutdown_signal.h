#ifndef RATEQUANT_SERVICES_COMMON_SHUTDOWN_SIGNAL_H_
#define RATEQUANT_SERVICES_COMMON_SHUTDOWN_SIGNAL_H_

namespace ratequant {

// Turns the first SIGTERM or SIGINT into a wake-up instead of a death, so that
// a server can drain. After it the signals have their default action again: a
// second Ctrl-C ends a process that is stuck while draining.
//
// Signal masks aren't touched, so child processes start with the usual ones.
// One object at a time in a process; create it before the server starts.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Blocks until a signal came; returns its number. Callable once.
  int Wait();
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_SHUTDOWN_SIGNAL_H_
