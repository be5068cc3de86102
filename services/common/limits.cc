#include "services/common/limits.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

// Until a place of a client's own calls is free: most take milliseconds.
constexpr absl::Duration kPlaceDelay = absl::Milliseconds(200);

}  // namespace

ClientMeter::ClientMeter(const ClientLimits& limits, size_t max_clients,
                         std::function<absl::Time()> clock)
    : limits_(limits),
      max_clients_(max_clients),
      clock_(std::move(clock)),
      mutex_(std::make_shared<std::mutex>()) {}

absl::Status ClientMeter::Count(const std::string& name) {
  if (limits_.rate <= 0) return absl::OkStatus();
  const absl::Time now = clock_();
  double missing = 0;
  {
    const std::lock_guard<std::mutex> lock(*mutex_);
    Client& client = Find(name);
    client.tokens = std::min<double>(
        limits_.burst,
        client.tokens +
            limits_.rate * absl::ToDoubleSeconds(now - client.counted));
    client.counted = now;
    if (client.tokens >= 1) {
      client.tokens -= 1;
      return absl::OkStatus();
    }
    missing = 1 - client.tokens;
  }
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                absl::StrCat("more than ", limits_.rate,
                             " calls a second; slow down")),
      absl::Seconds(missing / limits_.rate));
}

absl::StatusOr<CallPlace> ClientMeter::Enter(const std::string& name) {
  if (limits_.in_flight <= 0) return CallPlace();
  const std::lock_guard<std::mutex> lock(*mutex_);
  Client& client = Find(name);
  if (*client.in_flight >= limits_.in_flight) {
    return WithRetryDelay(
        MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_CALLS",
                  absl::StrCat(limits_.in_flight,
                               " calls of this client are waiting or worked "
                               "on; try again later")),
        kPlaceDelay);
  }
  ++*client.in_flight;
  return CallPlace(std::shared_ptr<void>(
      nullptr, [mutex = mutex_, count = client.in_flight](void*) {
        const std::lock_guard<std::mutex> lock(*mutex);
        --*count;
      }));
}

ClientMeter::Client& ClientMeter::Find(const std::string& name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) {
    clients_.splice(clients_.end(), clients_, found->second);
    return clients_.back();
  }
  if (clients_.size() >= max_clients_) Forget();
  clients_.push_back(Client{.name = name,
                            .tokens = static_cast<double>(limits_.burst),
                            .counted = clock_()});
  by_name_[name] = std::prev(clients_.end());
  return clients_.back();
}

void ClientMeter::Forget() {
  // A client with calls keeps its count; one without starts with a full bucket
  // again, which costs nothing but fairness among that many clients.
  const auto idle =
      std::find_if(clients_.begin(), clients_.end(),
                   [](const Client& client) { return *client.in_flight == 0; });
  if (idle == clients_.end()) return;
  by_name_.erase(idle->name);
  clients_.erase(idle);
}

}  // namespace ratequant
