#include "services/calibration/registry_client.h"

#include <chrono>
#include <future>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

// How often a running call looks whether it is still wanted.
constexpr std::chrono::milliseconds kCancelTick(50);

class GrpcRegistryClient : public RegistryClient {
 public:
  GrpcRegistryClient(const std::string& target, absl::Duration deadline)
      : deadline_(deadline) {
    grpc::ChannelArguments arguments;
    // Without it gRPC waits up to two minutes before it tries a lost
    // connection again, whatever the caller's own backoff.
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    // The answer is the calibration itself.
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::RegistryService::NewStub(grpc::CreateCustomChannel(
        target, grpc::InsecureChannelCredentials(), arguments));
  }

  absl::Status Create(const v1::Calibration& calibration,
                      const CancelToken& cancel) override {
    auto name = ParseCalibrationName(calibration.name(), "name");
    if (!name.ok()) return name.status();
    v1::CreateCalibrationRequest request;
    request.set_parent(ModelName(name->model));
    *request.mutable_calibration() = calibration;
    return Call(request, cancel);
  }

 private:
  absl::Status Call(const v1::CreateCalibrationRequest& request,
                    const CancelToken& cancel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoMilliseconds(deadline_));
    v1::Calibration stored;
    std::promise<grpc::Status> promise;
    std::future<grpc::Status> result = promise.get_future();
    stub_->async()->CreateCalibration(
        &context, &request, &stored,
        [&promise](grpc::Status status) { promise.set_value(status); });
    while (result.wait_for(kCancelTick) != std::future_status::ready) {
      if (!cancel.status().ok()) context.TryCancel();
    }
    const grpc::Status status = result.get();
    absl::Status cancelled = cancel.status();
    if (!status.ok() && !cancelled.ok()) return cancelled;
    return FromGrpcStatus(status);
  }

  const absl::Duration deadline_;
  std::unique_ptr<v1::RegistryService::Stub> stub_;
};

}  // namespace

std::unique_ptr<RegistryClient> MakeGrpcRegistryClient(
    const std::string& target, absl::Duration deadline) {
  return std::make_unique<GrpcRegistryClient>(target, deadline);
}

}  // namespace ratequant::calibration
