#ifndef RATEQUANT_CLIENTS_CPP_GRPC_CONNECTION_H_
#define RATEQUANT_CLIENTS_CPP_GRPC_CONNECTION_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/connection.h"
#include "clients/cpp/hedge.h"
#include "clients/cpp/retry.h"
#include "clients/cpp/status.h"
#include "grpcpp/channel.h"
#include "ratequant/v1/admin_service.grpc.pb.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "ratequant/v1/calibration_service.grpc.pb.h"

namespace ratequant::client {

// The generated stubs of one allocator.
struct AllocatorStubs {
  std::unique_ptr<v1::RegistryService::StubInterface> registry = nullptr;
  std::unique_ptr<v1::AllocationService::StubInterface> allocation = nullptr;
  std::unique_ptr<v1::AdminService::StubInterface> admin = nullptr;

  // Not OK: why it can't be called; no call is made then.
  absl::Status callable = absl::OkStatus();
};

// The generated stubs a connection calls.
struct Stubs {
  // One at least: `allocator_endpoint`, then the replicas.
  std::vector<AllocatorStubs> allocators;
  std::unique_ptr<v1::CalibrationService::StubInterface> calibration = nullptr;
  absl::Status worker_callable = absl::OkStatus();
};

// A channel to one of the endpoints. It connects on first use. `callable` is
// why there can be none; the one returned is not to be used then.
std::shared_ptr<grpc::Channel> MakeChannel(const ConnectionOptions& options,
                                           const std::string& endpoint,
                                           absl::Status* callable);

// Stubs over channels to the endpoints of `options`. Channels connect on first
// use. What isn't callable has the status of MakeCredentials.
Stubs MakeStubs(const ConnectionOptions& options);

// A connection over gRPC.
class GrpcConnection final : public Connection {
 public:
  GrpcConnection(ConnectionOptions options, Stubs stubs,
                 Environment environment = Environment::Real());

  absl::StatusOr<v1::Calibration> CreateCalibration(
      const v1::CreateCalibrationRequest& request) override;
  absl::StatusOr<v1::Calibration> GetCalibration(
      const v1::GetCalibrationRequest& request) override;
  absl::StatusOr<v1::ListCalibrationsResponse> ListCalibrations(
      const v1::ListCalibrationsRequest& request) override;
  absl::Status DeleteCalibration(
      const v1::DeleteCalibrationRequest& request) override;
  absl::StatusOr<v1::Model> GetModel(
      const v1::GetModelRequest& request) override;
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      const v1::ListModelsRequest& request) override;
  absl::StatusOr<v1::NamedPolicy> CreatePolicy(
      const v1::CreatePolicyRequest& request) override;
  absl::StatusOr<v1::NamedPolicy> GetPolicy(
      const v1::GetPolicyRequest& request) override;
  absl::StatusOr<v1::ListPoliciesResponse> ListPolicies(
      const v1::ListPoliciesRequest& request) override;
  absl::Status DeletePolicy(const v1::DeletePolicyRequest& request) override;
  absl::StatusOr<v1::GetBitMapResponse> GetBitMap(
      const v1::GetBitMapRequest& request, Cancellation* cancellation) override;
  absl::StatusOr<v1::RateDistortionCurve> GetRateDistortionCurve(
      const v1::GetRateDistortionCurveRequest& request) override;
  absl::StatusOr<v1::Evaluation> RecordEvaluation(
      const v1::RecordEvaluationRequest& request) override;
  absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const v1::ListEvaluationsRequest& request) override;
  absl::Status DeleteEvaluation(
      const v1::DeleteEvaluationRequest& request) override;
  absl::StatusOr<v1::Backup> CreateBackup(
      const v1::CreateBackupRequest& request) override;
  absl::StatusOr<v1::Statistics> GetStatistics(
      const v1::GetStatisticsRequest& request) override;
  absl::Status WatchBitMap(
      v1::GetBitMapRequest request,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation) override;
  absl::StatusOr<v1::CalibrateProgress> CalibrateModel(
      const v1::CalibrateModelRequest& request,
      const std::function<void(const v1::CalibrateProgress&)>& on_progress,
      Cancellation* cancellation) override;

 private:
  // What becomes of a call to an allocator that was UNAVAILABLE.
  enum class Repeat {
    kNever,       // it may have been carried out
    kSameServer,  // asks for that server's own state
    kNextServer,  // tried again, at the next replica
    kHedged,      // the same, and asked of several when it takes long
  };

  int replicas() const { return static_cast<int>(stubs_.allocators.size()); }

  // The replica whose answer counts.
  absl::StatusOr<int> Answer(Repeat repeat, absl::Time deadline,
                             Cancellation* cancellation,
                             const ReplicaCall& call);
  absl::StatusOr<int> AnswerRead(absl::Time deadline,
                                 Cancellation* cancellation,
                                 const ReplicaCall& call);

  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      Repeat repeat, std::unique_ptr<Service> AllocatorStubs::*service,
      grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                      Response*),
      const Request& request, Cancellation* cancellation = nullptr);

  // Adds what every call carries. `callable`, or an error of AddToken.
  absl::Status Prepare(const absl::Status& callable,
                       grpc::ClientContext* context) const;

  // One stream of WatchBitMap. Keeps the last etag in `request`; `heard` tells
  // whether there was a message.
  absl::Status WatchOnce(
      int replica, v1::GetBitMapRequest* request, bool resumed, bool* heard,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation);
  absl::Status Explain(absl::Status status, Server server,
                       absl::Duration timeout) const;

  const ConnectionOptions options_;
  const Stubs stubs_;
  const Environment environment_;
  std::atomic<int> preferred_ = 0;  // the replica that answered a read last
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_GRPC_CONNECTION_H_
