#include "services/calibration/registry_client.h"

#include <chrono>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/common/listen_address.h"
#include "services/common/metrics.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "services/common/trace.h"

namespace ratequant::calibration {
namespace {

// How often a running call looks whether it is still wanted.
constexpr std::chrono::milliseconds kCancelTick(50);

constexpr std::chrono::seconds kConnectTime(2);

// The file may have changed since the last call. A fault may pass: UNAVAILABLE.
absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string token;
  if (file >> token) return token;
  return MakeError(absl::StatusCode::kUnavailable, "TOKEN_UNREADABLE",
                   absl::StrCat("there is no token in ", path),
                   {{"path", path}});
}

// Of attempts to call, named as gRPC's OpenTelemetry plugin names them.
class AttemptMetrics {
 public:
  explicit AttemptMetrics(const std::string& target)
      : labels_({{"grpc_method", kMethod}, {"grpc_target", target}}),
        started_(Metrics::Get().Counter("grpc_client_attempt_started_total",
                                        "Attempts to call that began",
                                        labels_)) {
    Durations(absl::StatusCode::kOk);
  }

  void Started() { started_.Increment(); }

  void Count(grpc::StatusCode code, absl::Duration time) {
    Durations(static_cast<absl::StatusCode>(code))
        .Observe(absl::ToDoubleSeconds(time));
  }

 private:
  static constexpr char kMethod[] =
      "ratequant.v1.RegistryService/CreateCalibration";

  prometheus::Histogram& Durations(absl::StatusCode code) {
    MetricLabels labels = labels_;
    labels["grpc_status"] = absl::StatusCodeToString(code);
    return Metrics::Get().Durations("grpc_client_attempt_duration_seconds",
                                    "Time of an attempt to call", labels);
  }

  const MetricLabels labels_;
  prometheus::Counter& started_;
};

class GrpcRegistryClient : public RegistryClient {
 public:
  GrpcRegistryClient(
      const RegistryTarget& target,
      const std::shared_ptr<grpc::ChannelCredentials>& credentials,
      absl::Duration deadline)
      : attempts_(target.address),
        token_file_(target.token_file),
        deadline_(deadline) {
    grpc::ChannelArguments arguments;
    // Without it gRPC waits up to two minutes before it tries a lost
    // connection again, whatever the caller's own backoff.
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    // The answer is the calibration itself.
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ =
        grpc::CreateCustomChannel(target.address, credentials, arguments);
    stub_ = v1::RegistryService::NewStub(channel_);
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

  absl::Status CheckReachable() override {
    const auto deadline = std::chrono::system_clock::now() + kConnectTime;
    if (channel_->WaitForConnected(deadline)) return absl::OkStatus();
    return absl::UnavailableError("can't connect to the allocator");
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
    if (const CallIds* call = CurrentCall()) {
      for (const auto& [key, value] : call->Metadata()) {
        context.AddMetadata(key, value);
      }
    }
    v1::Calibration stored;
    attempts_.Started();
    const absl::Time begin = absl::Now();
    std::promise<grpc::Status> promise;
    std::future<grpc::Status> result = promise.get_future();
    stub_->async()->CreateCalibration(
        &context, &request, &stored,
        [&promise](grpc::Status status) { promise.set_value(status); });
    while (result.wait_for(kCancelTick) != std::future_status::ready) {
      if (!cancel.status().ok()) context.TryCancel();
    }
    const grpc::Status status = result.get();
    attempts_.Count(status.error_code(), absl::Now() - begin);
    absl::Status cancelled = cancel.status();
    if (!status.ok() && !cancelled.ok()) return cancelled;
    return FromGrpcStatus(status);
  }

  AttemptMetrics attempts_;
  const std::string token_file_;
  const absl::Duration deadline_;
  std::shared_ptr<grpc::Channel> channel_;
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
