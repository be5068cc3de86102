#ifndef RATEQUANT_CLIENTS_CPP_CONNECTION_H_
#define RATEQUANT_CLIENTS_CPP_CONNECTION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/retry.h"
#include "clients/cpp/status.h"
#include "clients/cpp/transport.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration_service.pb.h"

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

  // Further allocators with the same content as `allocator_endpoint`. What may
  // be repeated goes to the next one after a failure, at once as long as there
  // is one that wasn't asked yet. Empty: there is only one.
  std::vector<std::string> allocator_replicas = {};

  // A read that isn't answered within this time is asked of the next replica as
  // well; the first answer counts and the other call is cancelled.
  absl::Duration hedge_delay = absl::Milliseconds(50);

  // Without TLS only servers on this machine are called, unless `insecure`.
  TlsOptions tls = {};
  bool insecure = false;

  // Holds a bearer token, read again for each call; empty: none is sent.
  std::string token_file = "";

  // In place of `tls`, when not null.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
};

// One method for each RPC. Reads, and CreateCalibration, which is idempotent,
// are tried again after UNAVAILABLE, and when an overloaded server says when;
// deletions and calibrations are not.
//
// A status says which server it came from (StatusServer); when that server gave
// no answer (IsUnreachable) the message begins with "cannot reach the {server}
// at {endpoint}", "lost the connection to the {server} at {endpoint}" or "no
// answer from the {server} at {endpoint} within {time}".
// With replicas the first of all reads and repeated calls goes to the one that
// answered last, and errors name every endpoint. Thread-safe.
//
// An interface, so that users of Client can be tested without a server: see
// mocks/mock_connection.h.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual absl::StatusOr<v1::Calibration> CreateCalibration(
      const v1::CreateCalibrationRequest& request) = 0;
  virtual absl::StatusOr<v1::Calibration> GetCalibration(
      const v1::GetCalibrationRequest& request) = 0;
  virtual absl::StatusOr<v1::ListCalibrationsResponse> ListCalibrations(
      const v1::ListCalibrationsRequest& request) = 0;
  virtual absl::Status DeleteCalibration(
      const v1::DeleteCalibrationRequest& request) = 0;
  virtual absl::StatusOr<v1::Model> GetModel(
      const v1::GetModelRequest& request) = 0;
  virtual absl::StatusOr<v1::ListModelsResponse> ListModels(
      const v1::ListModelsRequest& request) = 0;
  virtual absl::StatusOr<v1::NamedPolicy> CreatePolicy(
      const v1::CreatePolicyRequest& request) = 0;
  virtual absl::StatusOr<v1::NamedPolicy> GetPolicy(
      const v1::GetPolicyRequest& request) = 0;
  virtual absl::StatusOr<v1::ListPoliciesResponse> ListPolicies(
      const v1::ListPoliciesRequest& request) = 0;
  virtual absl::Status DeletePolicy(const v1::DeletePolicyRequest& request) = 0;
  // CANCELLED when `cancellation`, which may be null, ended the call.
  virtual absl::StatusOr<v1::GetBitMapResponse> GetBitMap(
      const v1::GetBitMapRequest& request, Cancellation* cancellation) = 0;
  virtual absl::StatusOr<v1::RateDistortionCurve> GetRateDistortionCurve(
      const v1::GetRateDistortionCurveRequest& request) = 0;

  virtual absl::StatusOr<v1::Evaluation> RecordEvaluation(
      const v1::RecordEvaluationRequest& request) = 0;
  virtual absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const v1::ListEvaluationsRequest& request) = 0;
  virtual absl::Status DeleteEvaluation(
      const v1::DeleteEvaluationRequest& request) = 0;
  virtual absl::StatusOr<v1::Backup> CreateBackup(
      const v1::CreateBackupRequest& request) = 0;
  virtual absl::StatusOr<v1::Statistics> GetStatistics(
      const v1::GetStatisticsRequest& request) = 0;

  // Calls `on_answer` for every answer, on this thread, until the server
  // refuses the query or `cancellation`, which may be null, ends the call
  // (CANCELLED). After a stream broke off it goes on where it was, `unchanged`
  // left out; UNAVAILABLE when as many attempts in a row as a read makes
  // brought nothing.
  virtual absl::Status WatchBitMap(
      v1::GetBitMapRequest request,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation) = 0;

  // Calls `on_progress` for every message, on this thread, and returns the last
  // one, whose phase is DONE. CANCELLED when `cancellation`, which may be null,
  // ended the call.
  virtual absl::StatusOr<v1::CalibrateProgress> CalibrateModel(
      const v1::CalibrateModelRequest& request,
      const std::function<void(const v1::CalibrateProgress&)>& on_progress,
      Cancellation* cancellation) = 0;
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CONNECTION_H_
