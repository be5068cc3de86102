#ifndef RATEQUANT_SERVICES_COMMON_HEALTH_MONITOR_H_
#define RATEQUANT_SERVICES_COMMON_HEALTH_MONITOR_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "services/common/server.h"

namespace ratequant {

// Something a service needs or uses.
struct Dependency {
  std::string name;  // what health checks ask for: "store", "device"

  // Whether the service can't do its work without it.
  bool required = true;

  // Looks at it; may take some seconds.
  std::function<absl::Status()> check;

  // How often.
  std::chrono::milliseconds period = std::chrono::seconds(2);
};

// Looks at dependencies again and again and tells grpc.health.v1, under their
// names, the metric ratequant_dependency_up, and the log when one changes.
// Thread-safe.
class HealthMonitor {
 public:
  // `server`, and what the checks use, must outlive it.
  HealthMonitor(Server* server, std::vector<Dependency> dependencies);

  // Waits for a check that runs.
  ~HealthMonitor();
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;

  // OK while the server serves and all required dependencies were well when
  // last looked at; else UNAVAILABLE says what isn't.
  absl::Status Ready() const;

 private:
  struct Watched {
    Dependency dependency;
    std::chrono::steady_clock::time_point due;
    absl::Status status = absl::UnavailableError("not looked at yet");
  };

  void Run();
  void Look(Watched* watched);

  Server* const server_;
  mutable std::mutex mutex_;  // guards what follows, of Watched the status
  std::vector<Watched> watched_;
  bool stopping_ = false;
  std::condition_variable stop_;
  std::shared_ptr<void> samples_;
  std::thread thread_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_HEALTH_MONITOR_H_
