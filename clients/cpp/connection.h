#ifndef RATEQUANT_CLIENTS_CPP_CONNECTION_H_
#define RATEQUANT_CLIENTS_CPP_CONNECTION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/retry.h"
#include "clients/cpp/status.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/admin_service.grpc.pb.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "ratequant/v1/calibration_service.grpc.pb.h"

namespace ratequant::client {

// Where the servers are and how calls to them behave.
struct ConnectionOptions {
  std::string allocator_endpoint = "127.0.0.1:50061";
  std::string worker_endpoint = "127.0.0.1:50062";

  // Longest time one method may take, all attempts together. A calibration has
  // no limit unless `calibrate_timeout` is set.
  absl::Duration timeout = absl::Seconds(30);
  std::optional<absl::Duration> calibrate_timeout = std::nullopt;

  RetryPolicy retry = {};

  // Null means plain text.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
};

// The generated stubs a connection calls.
struct Stubs {
  std::unique_ptr<v1::RegistryService::StubInterface> registry;
  std::unique_ptr<v1::AllocationService::StubInterface> allocation;
  std::unique_ptr<v1::AdminService::StubInterface> admin = nullptr;
  std::unique_ptr<v1::CalibrationService::StubInterface> calibration;
};

// Stubs over channels to the endpoints of `options`. Channels connect on first
// use.
Stubs MakeStubs(const ConnectionOptions& options);

// One method for each RPC. Reads, and CreateCalibration, which is idempotent,
// are tried again after UNAVAILABLE; deletions and calibrations are not.
//
// A status says which server it came from (StatusServer); when that server gave
// no answer (IsUnreachable) the message begins with "cannot reach the {server}
// at {endpoint}", "lost the connection to the {server} at {endpoint}" or "no
// answer from the {server} at {endpoint} within {time}".
// Thread-safe.
class Connection {
 public:
  Connection(ConnectionOptions options, Stubs stubs,
             Environment environment = Environment::Real());

  absl::StatusOr<v1::Calibration> CreateCalibration(
      const v1::CreateCalibrationRequest& request);
  absl::StatusOr<v1::Calibration> GetCalibration(
      const v1::GetCalibrationRequest& request);
  absl::StatusOr<v1::ListCalibrationsResponse> ListCalibrations(
      const v1::ListCalibrationsRequest& request);
  absl::Status DeleteCalibration(const v1::DeleteCalibrationRequest& request);
  absl::StatusOr<v1::Model> GetModel(const v1::GetModelRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      const v1::ListModelsRequest& request);
  absl::StatusOr<v1::NamedPolicy> CreatePolicy(
      const v1::CreatePolicyRequest& request);
  absl::StatusOr<v1::NamedPolicy> GetPolicy(
      const v1::GetPolicyRequest& request);
  absl::StatusOr<v1::ListPoliciesResponse> ListPolicies(
      const v1::ListPoliciesRequest& request);
  absl::Status DeletePolicy(const v1::DeletePolicyRequest& request);
  absl::StatusOr<v1::GetBitMapResponse> GetBitMap(
      const v1::GetBitMapRequest& request);
  absl::StatusOr<v1::RateDistortionCurve> GetRateDistortionCurve(
      const v1::GetRateDistortionCurveRequest& request);

  absl::StatusOr<v1::Evaluation> RecordEvaluation(
      const v1::RecordEvaluationRequest& request);
  absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const v1::ListEvaluationsRequest& request);
  absl::Status DeleteEvaluation(const v1::DeleteEvaluationRequest& request);
  absl::StatusOr<v1::Backup> CreateBackup(
      const v1::CreateBackupRequest& request);
  absl::StatusOr<v1::Statistics> GetStatistics(
      const v1::GetStatisticsRequest& request);

  // Calls `on_answer` for every answer, on this thread, until the server
  // refuses the query or `cancellation`, which may be null, ends the call
  // (CANCELLED). After a stream broke off it goes on where it was, `unchanged`
  // left out; UNAVAILABLE when as many attempts in a row as a read makes
  // brought nothing.
  absl::Status WatchBitMap(
      v1::GetBitMapRequest request,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation);

  // Calls `on_progress` for every message, on this thread, and returns the last
  // one, whose phase is DONE. CANCELLED when `cancellation`, which may be null,
  // ended the call.
  absl::StatusOr<v1::CalibrateProgress> CalibrateModel(
      const v1::CalibrateModelRequest& request,
      const std::function<void(const v1::CalibrateProgress&)>& on_progress,
      Cancellation* cancellation);

 private:
  // A call to the allocator, bound to its request and response.
  using Call = std::function<grpc::Status(grpc::ClientContext*)>;

  absl::Status CallOnce(absl::Time deadline, const Call& call);
  absl::Status CallWithRetry(const Call& call);
  // One stream of WatchBitMap. Keeps the last etag in `request`; `heard` tells
  // whether there was a message.
  absl::Status WatchOnce(
      v1::GetBitMapRequest* request, bool resumed, bool* heard,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation);
  absl::Status Explain(absl::Status status, Server server,
                       absl::Duration timeout) const;

  const ConnectionOptions options_;
  const Stubs stubs_;
  const Environment environment_;
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CONNECTION_H_
