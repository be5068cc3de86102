#ifndef RATEQUANT_SERVICES_CALIBRATION_WORKER_H_
#define RATEQUANT_SERVICES_CALIBRATION_WORKER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/calibration/calibration_service.h"
#include "services/calibration/engine_source.h"
#include "services/calibration/plan.h"
#include "services/calibration/publisher.h"
#include "services/calibration/registry_client.h"
#include "services/common/call_gate.h"
#include "services/common/health_monitor.h"
#include "services/common/metrics.h"
#include "services/common/server.h"

namespace ratequant::calibration {

struct WorkerOptions {
  ServerOptions server;
  std::string model_root;
  CallGate* gate = nullptr;  // lets calls in; outlives the worker; null: all
  RegistryTarget allocator;  // without address: calibrations stay in the spool
  std::string spool_dir;
  EngineOptions engine;
  kv::Device device;  // of the sweep
  int threads = 0;    // of the sweep on the CPU; 0: one per core
  JobQueue::Options queue;
  uint64_t memory_limit = kDefaultMemoryLimit;          // of layers and tables
  absl::Duration publish_deadline = absl::Seconds(10);  // of one attempt
  PublisherOptions publisher;
};

// A running worker: server, service, publisher, wired together. Thread-safe.
class Worker {
 public:
  // Errors of CheckSweepDevice, ModelRoot::Open, Spool::Open,
  // MakeGrpcRegistryClient and Server::Start.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(
      const WorkerOptions& options);

  // Shuts down.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const std::string& address() const { return server_->address(); }

  // Answers NOT_SERVING and still takes calls for `delay`.
  void Drain(absl::Duration delay) {
    server_->Drain(absl::ToChronoMilliseconds(delay));
  }

  // For HealthMonitor; the worker must outlive it.
  std::vector<Dependency> dependencies();
  Server* server() { return server_.get(); }

  // Lets calibrations that run finish for `grace`, ends them with UNAVAILABLE
  // then and those that wait at once, and stops the server. Clients have some
  // seconds to read their answers. May be called again.
  void Shutdown(absl::Duration grace);

 private:
  Worker() = default;

  std::unique_ptr<CallGate> open_gate_;  // when none was given
  kv::Device device_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<CalibrationService> service_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<void> samples_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_WORKER_H_
