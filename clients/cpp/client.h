#ifndef RATEQUANT_CLIENTS_CPP_CLIENT_H_
#define RATEQUANT_CLIENTS_CPP_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/connection.h"
#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::client {

// RateQuant's API for C++ programs. Everywhere a model is asked for, an id, a
// hub name ("Qwen/Qwen3-8B") and a resource name ("models/Qwen--Qwen3-8B") will
// do. Failures carry the server's reason: see ErrorReason, FieldViolations and
// IsUnreachable in status.h. Thread-safe.
//
//   Client client(ConnectionOptions{.allocator_endpoint = "10.0.0.7:50061"});
//   v1::GetBitMapRequest request;
//   request.set_model(ModelName("Qwen/Qwen3-8B"));
//   request.mutable_budget()->set_effective_bits(3);
//   absl::StatusOr<v1::GetBitMapResponse> answer = client.GetBitMap(request);
class Client {
 public:
  // Connects on first use.
  explicit Client(const ConnectionOptions& options);
  explicit Client(std::unique_ptr<Connection> connection);

  // Calibrates a model the worker can read. Blocks until it is done, calling
  // `on_progress` on this thread; another thread may end it through
  // `cancellation`, which may be null. Returns the last message, with the
  // calibration's name. Never tried again by itself.
  absl::StatusOr<v1::CalibrateProgress> CalibrateModel(
      const v1::CalibrateModelRequest& request,
      const std::function<void(const v1::CalibrateProgress&)>& on_progress,
      Cancellation* cancellation = nullptr);

  // Stores a calibration under a model; returns it with its name.
  absl::StatusOr<v1::Calibration> CreateCalibration(
      absl::string_view model, const v1::Calibration& calibration);

  // One calibration, tables included; "latest" is the model's newest.
  absl::StatusOr<v1::Calibration> GetCalibration(
      absl::string_view model, absl::string_view calibration = "latest");

  // A model's calibrations, newest first, without their arrays: all, or those
  // within the quantizer and times of `filter`, whose other fields aren't read.
  absl::StatusOr<std::vector<v1::Calibration>> ListCalibrations(
      absl::string_view model, v1::ListCalibrationsRequest filter = {});

  // Deletes a calibration and the bit maps solved from it; with evaluations of
  // those it needs `force`, which deletes them too. After UNAVAILABLE it isn't
  // known whether it is deleted.
  absl::Status DeleteCalibration(absl::string_view model,
                                 absl::string_view calibration,
                                 bool force = false);

  // A model that has a calibration.
  absl::StatusOr<v1::Model> GetModel(absl::string_view model);

  // The models whose id begins with `id_prefix`, by id.
  absl::StatusOr<std::vector<v1::Model>> ListModels(
      absl::string_view id_prefix = "");

  // Stores a policy under a name; the same content again is the stored one.
  // Queries name it in `policy_name`.
  absl::StatusOr<v1::NamedPolicy> CreatePolicy(absl::string_view name,
                                               const v1::Policy& policy);

  // A policy by its name.
  absl::StatusOr<v1::NamedPolicy> GetPolicy(absl::string_view name);

  // All policies, by name.
  absl::StatusOr<std::vector<v1::NamedPolicy>> ListPolicies();

  // Deletes a policy; bit maps made with it stay.
  absl::Status DeletePolicy(absl::string_view name);

  // The best bit map within a budget, or `unchanged`. Another thread may end it
  // through `cancellation`, which may be null.
  absl::StatusOr<v1::GetBitMapResponse> GetBitMap(
      const v1::GetBitMapRequest& request,
      Cancellation* cancellation = nullptr);

  // The answer to a query, and each other one that takes its place: blocks,
  // calling `on_answer` on this thread, until the query is refused or another
  // thread ends it through `cancellation`, which may be null. Goes on by itself
  // after the allocator was away.
  absl::Status WatchBitMap(
      const v1::GetBitMapRequest& request,
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation = nullptr);

  // Attaches a measurement to a bit map; returns it as it is stored.
  absl::StatusOr<v1::Evaluation> RecordEvaluation(
      const v1::RecordEvaluationRequest& request);

  // All evaluations of a bit map, or of a model's maps, by resource name.
  absl::StatusOr<std::vector<v1::Evaluation>> ListEvaluations(
      absl::string_view parent);

  // Deletes an evaluation by its resource name.
  absl::Status DeleteEvaluation(absl::string_view name);

  // Copies the allocator's store to a new folder below its backup folder.
  absl::StatusOr<v1::Backup> CreateBackup(absl::string_view backup);

  // The allocator's counters.
  absl::StatusOr<v1::Statistics> GetStatistics();

  // Predicted loss against cost over all budgets.
  absl::StatusOr<v1::RateDistortionCurve> GetRateDistortionCurve(
      const v1::GetRateDistortionCurveRequest& request);

 private:
  const std::unique_ptr<Connection> connection_;
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CLIENT_H_
