#ifndef RATEQUANT_CLIENTS_CPP_RETRY_H_
#define RATEQUANT_CLIENTS_CPP_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace ratequant::client {

// How often, and how long apart, a call that may be repeated is tried.
struct RetryPolicy {
  int max_attempts = 4;
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(2);
  double multiplier = 2;
};

// Time and chance, replaced in tests. All must be safe to call from several
// threads.
struct Environment {
  // The current time.
  std::function<absl::Time()> now;
  // Blocks for the duration.
  std::function<void(absl::Duration)> sleep;
  // Blocks until `wakeup` is notified, which gives true, or the duration has
  // passed.
  std::function<bool(const absl::Notification& wakeup, absl::Duration)> wait;
  // Uniform in [0, 1).
  std::function<double()> random;

  // The real clock, sleep and a seeded generator.
  static Environment Real();
};

// Calls `attempt` until it succeeds, fails with anything that isn't
// IsTransient, `policy.max_attempts` are used up, or the next pause would end
// after `deadline`. Pauses grow from `initial_backoff` by `multiplier` up to
// `max_backoff`, each shortened at random to between half and all of it, so
// that many clients don't come back at once, and come on top of RetryDelay.
// Returns the last attempt's status.
//
// UNAVAILABLE with a reason is the server's own answer (a store that failed,
// for example) and is tried again like a broken connection.
absl::Status RetryTransient(const RetryPolicy& policy,
                            const Environment& environment, absl::Time deadline,
                            const std::function<absl::Status()>& attempt);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_RETRY_H_
