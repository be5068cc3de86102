#include "services/calibration/worker.h"

#include <utility>

#include "services/calibration/model_path.h"
#include "services/calibration/registry_client.h"
#include "services/calibration/spool.h"

namespace ratequant::calibration {
namespace {

// A look at a GPU takes memory and time from what runs on it.
constexpr std::chrono::seconds kDevicePeriod(30);

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(
    const WorkerOptions& options) {
  const absl::Status device = CheckSweepDevice(options.device);
  if (!device.ok()) return device;
  auto root = ModelRoot::Open(options.model_root);
  if (!root.ok()) return root.status();
  auto spool = Spool::Open(options.spool_dir);
  if (!spool.ok()) return spool.status();
  std::unique_ptr<RegistryClient> registry;
  if (!options.allocator.address.empty()) {
    auto made =
        MakeGrpcRegistryClient(options.allocator, options.publish_deadline);
    if (!made.ok()) return made.status();
    registry = *std::move(made);
  }
  auto publisher = Publisher::Start(std::move(registry), *std::move(spool),
                                    options.publisher);
  if (!publisher.ok()) return publisher.status();

  std::unique_ptr<Worker> worker(new Worker());
  CallGate* gate = options.gate;
  if (gate == nullptr) {
    worker->open_gate_ = std::make_unique<CallGate>();
    gate = worker->open_gate_.get();
  }
  worker->publisher_ = *std::move(publisher);
  worker->service_ = std::make_unique<CalibrationService>(
      *std::move(root), options.engine,
      SweepExecution{options.device, options.threads}, options.queue,
      options.memory_limit, *worker->publisher_, *gate);
  auto server = Server::Start(
      options.server,
      {{worker->service_.get(), v1::CalibrationService::service_full_name()}});
  if (!server.ok()) return server.status();
  worker->server_ = *std::move(server);
  worker->device_ = options.device;
  worker->samples_ =
      Metrics::Get().Sample([publisher = worker->publisher_.get(),
                             tls = options.allocator.tls](MetricSamples* out) {
        publisher->AddSamples(out);
        if (!tls.certificate.empty()) {
          SampleCertificate("allocator-client", tls.certificate, out);
        }
        if (!tls.ca.empty()) SampleCertificate("allocator-ca", tls.ca, out);
      });
  return worker;
}

std::vector<Dependency> Worker::dependencies() {
  std::vector<Dependency> all = {
      {.name = "device",
       .required = true,
       .check = [this] { return CheckSweepDevice(device_); },
       .period = kDevicePeriod}};
  if (publisher_->has_registry()) {
    // Without it calibrations wait in the spool.
    all.push_back({.name = "allocator", .required = false, .check = [this] {
                     return publisher_->CheckReachable();
                   }});
  }
  return all;
}

namespace {

constexpr std::chrono::seconds kReadAnswers(5);

}  // namespace

Worker::~Worker() { Shutdown(absl::ZeroDuration()); }

void Worker::Shutdown(absl::Duration grace) {
  if (server_ != nullptr) server_->SetServing(false);
  if (service_ != nullptr) service_->Stop(grace);
  if (server_ != nullptr) server_->Shutdown(kReadAnswers);
}

}  // namespace ratequant::calibration
