#include "services/calibration/registry_client.h"

#include <chrono>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/common/listen_address.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

// How often a running call looks whether it is still wanted.
constexpr std::chrono::milliseconds kCancelTick(50);

// The file may have changed since the last call. A fault may pass: UNAVAILABLE.
absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string token;
  if (file >> token) return token;
  return MakeError(absl::StatusCode::kUnavailable, "TOKEN_UNREADABLE",
                   absl::StrCat("there is no token in ", path),
                   {{"path", path}});
}

class GrpcRegistryClient : public RegistryClient {
 public:
  GrpcRegistryClient(
      const RegistryTarget& target,
      const std::shared_ptr<grpc::ChannelCredentials>& credentials,
      absl::Duration deadline)
      : token_file_(target.token_file), deadline_(deadline) {
    grpc::ChannelArguments arguments;
    // Without it gRPC waits up to two minutes before it tries a lost
    // connection again, whatever the caller's own backoff.
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    // The answer is the calibration itself.
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::RegistryService::NewStub(
        grpc::CreateCustomChannel(target.address, credentials, arguments));
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
    if (!token_file_.empty()) {
      const absl::StatusOr<std::string> token = ReadToken(token_file_);
      if (!token.ok()) return token.status();
      context.AddMetadata("authorization", absl::StrCat("Bearer ", *token));
    }
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

  const std::string token_file_;
  const absl::Duration deadline_;
  std::unique_ptr<v1::RegistryService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RegistryClient>> MakeGrpcRegistryClient(
    const RegistryTarget& target, absl::Duration deadline) {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (target.encrypted) {
    auto made = TlsClientCredentials(target.tls);
    if (!made.ok()) {
      return Annotate(made.status(),
                      "--allocator-ca, --allocator-cert or --allocator-key");
    }
    credentials = *std::move(made);
  } else if (target.insecure || IsLoopbackTarget(target.address)) {
    credentials = grpc::InsecureChannelCredentials();
  } else {
    return MakeError(
        absl::StatusCode::kPermissionDenied, "INSECURE_ADDRESS",
        absl::StrCat("refusing to publish to ", target.address,
                     " in plaintext: it isn't loopback; give --allocator-tls "
                     "or --allocator-ca, or pass --insecure to allow it"),
        {{"address", target.address}});
  }
  return std::make_unique<GrpcRegistryClient>(target, credentials, deadline);
}

}  // namespace ratequant::calibration
