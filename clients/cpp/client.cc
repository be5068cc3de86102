#include "clients/cpp/client.h"

#include <utility>

#include "clients/cpp/grpc_connection.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::client {
namespace {

// The server's largest page: fewest calls.
constexpr int kPageSize = 1000;

}  // namespace

Client::Client(const ConnectionOptions& options)
    : connection_(
          std::make_unique<GrpcConnection>(options, MakeStubs(options))) {}

Client::Client(std::unique_ptr<Connection> connection)
    : connection_(std::move(connection)) {}

absl::StatusOr<v1::CalibrateProgress> Client::CalibrateModel(
    const v1::CalibrateModelRequest& request,
    const std::function<void(const v1::CalibrateProgress&)>& on_progress,
    Cancellation* cancellation) {
  return connection_->CalibrateModel(request, on_progress, cancellation);
}

absl::StatusOr<v1::Calibration> Client::CreateCalibration(
    absl::string_view model, const v1::Calibration& calibration) {
  v1::CreateCalibrationRequest request;
  request.set_parent(ModelName(model));
  *request.mutable_calibration() = calibration;
  return connection_->CreateCalibration(request);
}

absl::StatusOr<v1::Calibration> Client::GetCalibration(
    absl::string_view model, absl::string_view calibration) {
  v1::GetCalibrationRequest request;
  request.set_name(CalibrationName(model, calibration));
  return connection_->GetCalibration(request);
}

absl::StatusOr<std::vector<v1::Calibration>> Client::ListCalibrations(
    absl::string_view model, v1::ListCalibrationsRequest request) {
  request.set_parent(ModelName(model));
  request.set_page_size(kPageSize);
  request.clear_page_token();
  std::vector<v1::Calibration> calibrations;
  do {
    auto page = connection_->ListCalibrations(request);
    if (!page.ok()) return page.status();
    for (auto& calibration : *page->mutable_calibrations()) {
      calibrations.push_back(std::move(calibration));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return calibrations;
}

absl::Status Client::DeleteCalibration(absl::string_view model,
                                       absl::string_view calibration,
                                       bool force) {
  v1::DeleteCalibrationRequest request;
  request.set_force(force);
  request.set_name(CalibrationName(model, calibration));
  return connection_->DeleteCalibration(request);
}

absl::StatusOr<v1::Model> Client::GetModel(absl::string_view model) {
  v1::GetModelRequest request;
  request.set_name(ModelName(model));
  return connection_->GetModel(request);
}

absl::StatusOr<std::vector<v1::Model>> Client::ListModels(
    absl::string_view id_prefix) {
  v1::ListModelsRequest request;
  request.set_id_prefix(std::string(id_prefix));
  request.set_page_size(kPageSize);
  std::vector<v1::Model> models;
  do {
    auto page = connection_->ListModels(request);
    if (!page.ok()) return page.status();
    for (auto& model : *page->mutable_models()) {
      models.push_back(std::move(model));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return models;
}

absl::StatusOr<v1::NamedPolicy> Client::CreatePolicy(absl::string_view name,
                                                     const v1::Policy& policy) {
  v1::CreatePolicyRequest request;
  request.set_policy_id(ResourceId(name));
  *request.mutable_policy() = policy;
  return connection_->CreatePolicy(request);
}

absl::StatusOr<v1::NamedPolicy> Client::GetPolicy(absl::string_view name) {
  v1::GetPolicyRequest request;
  request.set_name(PolicyName(name));
  return connection_->GetPolicy(request);
}

absl::StatusOr<std::vector<v1::NamedPolicy>> Client::ListPolicies() {
  v1::ListPoliciesRequest request;
  request.set_page_size(kPageSize);
  std::vector<v1::NamedPolicy> policies;
  do {
    auto page = connection_->ListPolicies(request);
    if (!page.ok()) return page.status();
    for (auto& policy : *page->mutable_policies()) {
      policies.push_back(std::move(policy));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return policies;
}

absl::Status Client::DeletePolicy(absl::string_view name) {
  v1::DeletePolicyRequest request;
  request.set_name(PolicyName(name));
  return connection_->DeletePolicy(request);
}

absl::StatusOr<v1::GetBitMapResponse> Client::GetBitMap(
    const v1::GetBitMapRequest& request, Cancellation* cancellation) {
  return connection_->GetBitMap(request, cancellation);
}

absl::Status Client::WatchBitMap(
    const v1::GetBitMapRequest& request,
    const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
    Cancellation* cancellation) {
  return connection_->WatchBitMap(request, on_answer, cancellation);
}

absl::StatusOr<v1::Evaluation> Client::RecordEvaluation(
    const v1::RecordEvaluationRequest& request) {
  return connection_->RecordEvaluation(request);
}

absl::StatusOr<std::vector<v1::Evaluation>> Client::ListEvaluations(
    absl::string_view parent) {
  v1::ListEvaluationsRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(kPageSize);
  std::vector<v1::Evaluation> evaluations;
  do {
    auto page = connection_->ListEvaluations(request);
    if (!page.ok()) return page.status();
    for (auto& evaluation : *page->mutable_evaluations()) {
      evaluations.push_back(std::move(evaluation));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return evaluations;
}

absl::Status Client::DeleteEvaluation(absl::string_view name) {
  v1::DeleteEvaluationRequest request;
  request.set_name(std::string(name));
  return connection_->DeleteEvaluation(request);
}

absl::StatusOr<v1::Backup> Client::CreateBackup(absl::string_view backup) {
  v1::CreateBackupRequest request;
  request.set_backup(std::string(backup));
  return connection_->CreateBackup(request);
}

absl::StatusOr<v1::Statistics> Client::GetStatistics() {
  return connection_->GetStatistics({});
}

absl::StatusOr<v1::RateDistortionCurve> Client::GetRateDistortionCurve(
    const v1::GetRateDistortionCurveRequest& request) {
  return connection_->GetRateDistortionCurve(request);
}

}  // namespace ratequant::client
