#include "services/allocation/allocation_service.h"

#include <memory>
#include <string>
#include <utility>

#include "services/allocation/curve.h"
#include "services/allocation/handler.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

constexpr int kMaxBatch = 1000;
// Below what a server sends at most (64 MiB), whatever the last answer adds.
constexpr size_t kMaxBatchBytes = 48 << 20;

absl::Status CheckBatch(const v1::BatchGetBitMapsRequest& request) {
  if (request.requests_size() == 0) {
    return FieldError("BATCH_EMPTY", "requests",
                      absl::StrCat("is empty; give 1 to ", kMaxBatch));
  }
  if (request.requests_size() <= kMaxBatch) return absl::OkStatus();
  return FieldError(
      "BATCH_TOO_LARGE", "requests",
      absl::StrCat("has ", request.requests_size(), " entries; at most ",
                   kMaxBatch, " in one call"),
      {{"maximum", absl::StrCat(kMaxBatch)}});
}

absl::Status BatchFull() {
  return MakeError(
      absl::StatusCode::kResourceExhausted, "BATCH_RESPONSE_FULL",
      absl::StrCat("the answers before this one fill ", kMaxBatchBytes >> 20,
                   " MiB; ask for this one in another call"));
}

}  // namespace

grpc::ServerUnaryReactor* AllocationServiceImpl::GetBitMap(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  auto* reactor = context->DefaultReactor();
  v1::GetBitMapRequest request;
  grpc::ByteBuffer unread = *bytes;
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::GetBitMapRequest>::Deserialize(&unread,
                                                                   &request);
  if (!parsed.ok()) {
    reactor->Finish(parsed);
    return reactor;
  }
  const auto call = path_.gate->Admit(
      *context, "ratequant.v1.AllocationService.GetBitMap", &request);
  if (!call.ok()) {
    reactor->Finish(ToGrpcStatus(call.status()));
    return reactor;
  }
  const auto calibration = maps_->ResolveCalibration(request);
  if (!calibration.ok()) {
    reactor->Finish(ToGrpcStatus(calibration.status()));
    return reactor;
  }
  if (const auto answer = maps_->Lookup(*calibration, request)) {
    *response = *answer;
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  HandleAdmitted(path_, *call, context, reactor, bytes, response,
                 [this, name = *calibration, request](const auto&, auto* out) {
                   const auto answer = maps_->Get(name, request);
                   if (answer.ok()) *out = RespondTo(request, **answer);
                   return answer.status();
                 });
  return reactor;
}

grpc::ServerUnaryReactor* AllocationServiceImpl::GetRateDistortionCurve(
    grpc::CallbackServerContext* context,
    const v1::GetRateDistortionCurveRequest* request,
    v1::RateDistortionCurve* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.AllocationService.GetRateDistortionCurve",
           context, reactor, request, response,
           [this](const auto& in, auto* out) -> absl::Status {
             const auto name = maps_->ResolveCalibration(in);
             if (!name.ok()) return name.status();
             const auto calibration = registry_->Get(*name);
             if (!calibration.ok()) return calibration.status();
             auto resolved = in;
             if (!in.policy_name().empty()) {
               auto with_policy = registry_->policies().Resolve(in);
               if (!with_policy.ok()) return with_policy.status();
               resolved = *std::move(with_policy);
             }
             const auto query = MakeQuery(resolved, **calibration);
             if (!query.ok()) return query.status();
             auto curve = PlanCurve(**calibration, *query, in);
             if (curve.ok()) *out = *std::move(curve);
             return curve.status();
           });
  return reactor;
}

grpc::ServerUnaryReactor* AllocationServiceImpl::BatchGetBitMaps(
    grpc::CallbackServerContext* context,
    const v1::BatchGetBitMapsRequest* request,
    v1::BatchGetBitMapsResponse* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.AllocationService.BatchGetBitMaps", context,
           reactor, request, response,
           [this, context](const auto& in, auto* out) {
             absl::Status valid = CheckBatch(in);
             if (!valid.ok()) return valid;
             size_t bytes = 0;
             for (const v1::GetBitMapRequest& entry : in.requests()) {
               if (context->IsCancelled()) return CallCancelled();
               auto* result = out->add_results();
               absl::Status status = BatchFull();
               if (bytes < kMaxBatchBytes) {
                 const auto answer = maps_->Get(entry);
                 status = answer.status();
                 if (answer.ok()) {
                   FillResponse(entry, **answer, result->mutable_response());
                 }
               }
               if (!status.ok()) *result->mutable_error() = ToProto(status);
               bytes += result->ByteSizeLong();
             }
             return absl::OkStatus();
           });
  return reactor;
}

grpc::ServerWriteReactor<v1::GetBitMapResponse>*
AllocationServiceImpl::WatchBitMap(grpc::CallbackServerContext* context,
                                   const v1::GetBitMapRequest* request) {
  const auto call = path_.gate->Admit(
      *context, "ratequant.v1.AllocationService.WatchBitMap", request);
  return watches_->Watch(context, *request, call.status());
}

grpc::ServerUnaryReactor* AllocationServiceImpl::RecordEvaluation(
    grpc::CallbackServerContext* context,
    const v1::RecordEvaluationRequest* request, v1::Evaluation* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.AllocationService.RecordEvaluation", context,
           reactor, request, response, [this](const auto& in, auto* out) {
             const auto map = ParseBitMapName(in.bit_map(), "bit_map");
             if (!map.ok()) return map.status();
             auto stored = registry_->RecordEvaluation(*map, in.evaluation());
             if (stored.ok()) *out = *std::move(stored);
             return stored.status();
           });
  return reactor;
}

}  // namespace ratequant::allocation
