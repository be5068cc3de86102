#include "services/common/health_monitor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/metrics.h"
#include "spdlog/spdlog.h"

namespace ratequant {

HealthMonitor::HealthMonitor(Server* server,
                             std::vector<Dependency> dependencies)
    : server_(server) {
  for (Dependency& dependency : dependencies) {
    server_->SetHealth(dependency.name, false);
    watched_.push_back({std::move(dependency), {}});
  }
  samples_ = Metrics::Get().Sample([this](MetricSamples* out) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Watched& watched : watched_) {
      out->Gauge("ratequant_dependency_up",
                 "1 when the dependency was well when last looked at",
                 watched.status.ok() ? 1 : 0,
                 {{"dependency", watched.dependency.name}});
    }
  });
  thread_ = std::thread([this] { Run(); });
}

HealthMonitor::~HealthMonitor() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  thread_.join();
}

absl::Status HealthMonitor::Ready() const {
  if (!server_->serving()) return absl::UnavailableError("not serving");
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Watched& watched : watched_) {
    if (!watched.dependency.required || watched.status.ok()) continue;
    return absl::UnavailableError(
        absl::StrCat(watched.dependency.name, ": ", watched.status.message()));
  }
  return absl::OkStatus();
}

void HealthMonitor::Run() {
  while (true) {
    auto next = std::chrono::steady_clock::time_point::max();
    for (Watched& watched : watched_) {
      if (watched.due <= std::chrono::steady_clock::now()) Look(&watched);
      next = std::min(next, watched.due);
    }
    std::unique_lock<std::mutex> lock(mutex_);
    if (watched_.empty()) {
      stop_.wait(lock, [this] { return stopping_; });
    }
    if (stop_.wait_until(lock, next, [this] { return stopping_; })) return;
  }
}

void HealthMonitor::Look(Watched* watched) {
  const bool first = watched->due == std::chrono::steady_clock::time_point();
  absl::Status now = watched->dependency.check();
  watched->due = std::chrono::steady_clock::now() + watched->dependency.period;
  const std::string& name = watched->dependency.name;
  server_->SetHealth(name, now.ok());
  absl::Status before = now;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::swap(before, watched->status);
  }
  if (before.ok() == now.ok() && !first) return;
  if (now.ok()) {
    spdlog::info("{} is well", name);
  } else {
    spdlog::warn("{} isn't well: {}", name, std::string(now.message()));
  }
}

}  // namespace ratequant
