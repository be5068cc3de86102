#ifndef RATEQUANT_SERVICES_COMMON_LIMITS_H_
#define RATEQUANT_SERVICES_COMMON_LIMITS_H_

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ratequant {

// What one client may ask of a server. 0 means no limit.
struct ClientLimits {
  double rate = 0;      // calls a second, on average
  int burst = 100;      // calls at once, with `rate`; at least 1
  int in_flight = 512;  // calls that wait or are worked on
};

// Holds a place among a client's calls until it is destroyed. Movable.
class CallPlace {
 public:
  CallPlace() = default;
  explicit CallPlace(std::shared_ptr<void> release)
      : release_(std::move(release)) {}

 private:
  std::shared_ptr<void> release_;
};

// Counts what each client asks for: a token bucket of calls and how many run.
// Of more than `max_clients` the one that was quiet longest and has no call is
// forgotten. Thread-safe.
class ClientMeter {
 public:
  explicit ClientMeter(const ClientLimits& limits, size_t max_clients = 10'000,
                       std::function<absl::Time()> clock = absl::Now);

  // Takes a token. RESOURCE_EXHAUSTED (RATE_LIMITED) with
  // google.rpc.RetryInfo when there is none.
  absl::Status Count(const std::string& client);

  // Takes a place for a call. RESOURCE_EXHAUSTED (TOO_MANY_CALLS) with
  // RetryInfo when the client has all it may have.
  absl::StatusOr<CallPlace> Enter(const std::string& client);

  const ClientLimits& limits() const { return limits_; }

 private:
  struct Client {
    std::string name;
    double tokens = 0;
    absl::Time counted;  // when tokens was right
    std::shared_ptr<int> in_flight = std::make_shared<int>(0);
  };
  using Clients = std::list<Client>;  // the longest quiet first

  // The client, moved to the end; mutex_ held.
  Client& Find(const std::string& name);
  void Forget();  // mutex_ held

  const ClientLimits limits_;
  const size_t max_clients_;
  const std::function<absl::Time()> clock_;
  // Shared with places, which may outlive the meter.
  const std::shared_ptr<std::mutex> mutex_;
  // Guarded by mutex_.
  Clients clients_;
  std::unordered_map<std::string, Clients::iterator> by_name_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_LIMITS_H_
