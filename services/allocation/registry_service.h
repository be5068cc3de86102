#ifndef RATEQUANT_SERVICES_ALLOCATION_REGISTRY_SERVICE_H_
#define RATEQUANT_SERVICES_ALLOCATION_REGISTRY_SERVICE_H_

#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/allocation/handler.h"
#include "services/allocation/registry.h"

namespace ratequant::allocation {

// ratequant.v1.RegistryService over a Registry. Both arguments must outlive it.
class RegistryServiceImpl : public v1::RegistryService::CallbackService {
 public:
  RegistryServiceImpl(Registry* registry, CallPath path)
      : registry_(registry), path_(path) {}

  grpc::ServerUnaryReactor* CreateCalibration(
      grpc::CallbackServerContext* context,
      const v1::CreateCalibrationRequest* request,
      v1::Calibration* response) override;
  grpc::ServerUnaryReactor* GetCalibration(
      grpc::CallbackServerContext* context,
      const v1::GetCalibrationRequest* request,
      v1::Calibration* response) override;
  grpc::ServerUnaryReactor* ListCalibrations(
      grpc::CallbackServerContext* context,
      const v1::ListCalibrationsRequest* request,
      v1::ListCalibrationsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteCalibration(
      grpc::CallbackServerContext* context,
      const v1::DeleteCalibrationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(
      grpc::CallbackServerContext* context,
      const v1::ListModelsRequest* request,
      v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* ListEvaluations(
      grpc::CallbackServerContext* context,
      const v1::ListEvaluationsRequest* request,
      v1::ListEvaluationsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteEvaluation(
      grpc::CallbackServerContext* context,
      const v1::DeleteEvaluationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* CreatePolicy(grpc::CallbackServerContext* context,
                                         const v1::CreatePolicyRequest* request,
                                         v1::NamedPolicy* response) override;
  grpc::ServerUnaryReactor* GetPolicy(grpc::CallbackServerContext* context,
                                      const v1::GetPolicyRequest* request,
                                      v1::NamedPolicy* response) override;
  grpc::ServerUnaryReactor* ListPolicies(
      grpc::CallbackServerContext* context,
      const v1::ListPoliciesRequest* request,
      v1::ListPoliciesResponse* response) override;
  grpc::ServerUnaryReactor* DeletePolicy(
      grpc::CallbackServerContext* context,
      const v1::DeletePolicyRequest* request,
      google::protobuf::Empty* response) override;

 private:
  Registry* const registry_;
  const CallPath path_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_REGISTRY_SERVICE_H_
