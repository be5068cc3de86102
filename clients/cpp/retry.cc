#include "clients/cpp/retry.h"

#include <algorithm>

#include "absl/random/random.h"
#include "absl/time/clock.h"
#include "clients/cpp/status.h"

namespace ratequant::client {

Environment Environment::Real() {
  return {.now = [] { return absl::Now(); },
          .sleep = [](absl::Duration d) { absl::SleepFor(d); },
          .wait =
              [](const absl::Notification& wakeup, absl::Duration d) {
                return wakeup.WaitForNotificationWithTimeout(d);
              },
          .random =
              [] {
                thread_local absl::BitGen generator;
                return absl::Uniform(generator, 0.0, 1.0);
              }};
}

absl::Status RetryTransient(const RetryPolicy& policy,
                            const Environment& environment, absl::Time deadline,
                            const std::function<absl::Status()>& attempt) {
  absl::Duration backoff = policy.initial_backoff;
  for (int tried = 1;; ++tried) {
    absl::Status status = attempt();
    if (!IsTransient(status) || tried >= policy.max_attempts) {
      return status;
    }
    absl::Duration pause = backoff * (0.5 + 0.5 * environment.random());
    // The server's wish, and some more so that its clients don't all come back
    // at once.
    pause += RetryDelay(status).value_or(absl::ZeroDuration());
    if (environment.now() + pause >= deadline) return status;
    environment.sleep(pause);
    backoff = std::min(backoff * policy.multiplier, policy.max_backoff);
  }
}

}  // namespace ratequant::client
