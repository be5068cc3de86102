#include "services/allocation/registry_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/allocation/handler.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

// Moves the value out or returns the error.
template <typename T>
absl::Status Answer(absl::StatusOr<T> result, T* response) {
  if (!result.ok()) return result.status();
  *response = *std::move(result);
  return absl::OkStatus();
}

absl::Status Create(Registry* registry,
                    const v1::CreateCalibrationRequest& request,
                    v1::Calibration* response) {
  const auto model = ParseModelName(request.parent(), "parent");
  if (!model.ok()) {
    const auto violations = FieldViolations(model.status());
    return InvalidFields("INVALID_MODEL_ID", violations);
  }
  if (!request.has_calibration()) {
    return FieldError("INVALID_CALIBRATION", "calibration", "is not set");
  }
  auto created = registry->Create(*model, request.calibration());
  if (!created.ok()) {
    spdlog::warn("calibration of {} refused: {}", *model,
                 std::string(created.status().message()));
    return created.status();
  }
  *response = **created;
  spdlog::info("stored {}", response->name());
  return absl::OkStatus();
}

absl::Status Get(Registry* registry, const v1::GetCalibrationRequest& request,
                 v1::Calibration* response) {
  const auto name = ParseCalibrationName(request.name(), "name");
  if (!name.ok()) return name.status();
  const auto resolved = registry->Resolve(*name);
  if (!resolved.ok()) return resolved.status();
  const auto calibration = registry->Get(*resolved);
  if (!calibration.ok()) return calibration.status();
  *response = **calibration;
  return absl::OkStatus();
}

absl::Status Delete(Registry* registry,
                    const v1::DeleteCalibrationRequest& request) {
  const auto name = ParseCalibrationName(request.name(), "name");
  if (!name.ok()) return name.status();
  if (name->id == kLatestCalibration) {
    return FieldError("INVALID_NAME", "name",
                      "'latest' can't be deleted, it may have changed since "
                      "you looked; give the full name");
  }
  absl::Status deleted = registry->Delete(*name, request.force());
  if (deleted.ok()) spdlog::info("deleted {}", request.name());
  return deleted;
}

// A bit map, or all of a model's: its id is empty then.
absl::StatusOr<ChildName> EvaluationsParent(const std::string& parent) {
  const auto model = ParseModelName(parent, "parent");
  if (model.ok()) return ChildName{*model, ""};
  return ParseBitMapName(parent, "parent");
}

}  // namespace

grpc::ServerUnaryReactor* RegistryServiceImpl::CreateCalibration(
    grpc::CallbackServerContext* context,
    const v1::CreateCalibrationRequest* request, v1::Calibration* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.CreateCalibration", context,
           reactor, request, response, [this](const auto& in, auto* out) {
             return Create(registry_, in, out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::GetCalibration(
    grpc::CallbackServerContext* context,
    const v1::GetCalibrationRequest* request, v1::Calibration* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.GetCalibration", context,
           reactor, request, response, [this](const auto& in, auto* out) {
             return Get(registry_, in, out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::ListCalibrations(
    grpc::CallbackServerContext* context,
    const v1::ListCalibrationsRequest* request,
    v1::ListCalibrationsResponse* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.ListCalibrations", context,
           reactor, request, response, [this](const auto& in, auto* out) {
             const auto model = ParseModelName(in.parent(), "parent");
             if (!model.ok()) return model.status();
             return Answer(registry_->ListCalibrations(*model, in), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::DeleteCalibration(
    grpc::CallbackServerContext* context,
    const v1::DeleteCalibrationRequest* request,
    google::protobuf::Empty* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.DeleteCalibration", context,
           reactor, request, response,
           [this](const auto& in, auto*) { return Delete(registry_, in); });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::GetModel(
    grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
    v1::Model* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.GetModel", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             const auto model = ParseModelName(in.name(), "name");
             if (!model.ok()) return model.status();
             return Answer(registry_->GetModel(*model), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
    v1::ListModelsResponse* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.ListModels", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             return Answer(registry_->ListModels(in), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::ListEvaluations(
    grpc::CallbackServerContext* context,
    const v1::ListEvaluationsRequest* request,
    v1::ListEvaluationsResponse* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.ListEvaluations", context,
           reactor, request, response, [this](const auto& in, auto* out) {
             const auto parent = EvaluationsParent(in.parent());
             if (!parent.ok()) return parent.status();
             return Answer(registry_->ListEvaluations(*parent, in.page_size(),
                                                      in.page_token()),
                           out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::DeleteEvaluation(
    grpc::CallbackServerContext* context,
    const v1::DeleteEvaluationRequest* request,
    google::protobuf::Empty* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.DeleteEvaluation", context,
           reactor, request, response, [this](const auto& in, auto*) {
             const auto name = ParseEvaluationName(in.name(), "name");
             if (!name.ok()) return name.status();
             return registry_->DeleteEvaluation(*name);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::CreatePolicy(
    grpc::CallbackServerContext* context,
    const v1::CreatePolicyRequest* request, v1::NamedPolicy* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.CreatePolicy", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             const auto id =
                 ParsePolicyName(PolicyName(in.policy_id()), "policy_id");
             if (!id.ok()) return id.status();
             return Answer(registry_->policies().Create(*id, in.policy()), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::GetPolicy(
    grpc::CallbackServerContext* context, const v1::GetPolicyRequest* request,
    v1::NamedPolicy* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.GetPolicy", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             const auto id = ParsePolicyName(in.name(), "name");
             if (!id.ok()) return id.status();
             return Answer(registry_->policies().Get(*id), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::ListPolicies(
    grpc::CallbackServerContext* context,
    const v1::ListPoliciesRequest* request,
    v1::ListPoliciesResponse* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.ListPolicies", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             return Answer(registry_->policies().List(in), out);
           });
  return reactor;
}

grpc::ServerUnaryReactor* RegistryServiceImpl::DeletePolicy(
    grpc::CallbackServerContext* context,
    const v1::DeletePolicyRequest* request, google::protobuf::Empty* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.RegistryService.DeletePolicy", context, reactor,
           request, response, [this](const auto& in, auto*) {
             const auto id = ParsePolicyName(in.name(), "name");
             if (!id.ok()) return id.status();
             return registry_->policies().Delete(*id);
           });
  return reactor;
}

}  // namespace ratequant::allocation
