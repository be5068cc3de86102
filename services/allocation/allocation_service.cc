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

absl::Status Answer(const v1::GetBitMapRequest& request, const v1::BitMap& map,
                    v1::GetBitMapResponse* response) {
  const std::string etag = map.name().substr(map.name().rfind('/') + 1);
  response->set_etag(etag);
  if (request.known_etag() == etag) {
    response->set_unchanged(true);
  } else {
    *response->mutable_bit_map() = map;
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* AllocationServiceImpl::GetBitMap(
    grpc::CallbackServerContext* context, const v1::GetBitMapRequest* request,
    v1::GetBitMapResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto calibration = maps_.ResolveCalibration(*request);
  if (!calibration.ok()) {
    reactor->Finish(ToGrpcStatus(calibration.status()));
    return reactor;
  }
  if (const auto map = maps_.Lookup(*calibration, *request)) {
    reactor->Finish(ToGrpcStatus(Answer(*request, *map, response)));
    return reactor;
  }
  HandleOn(executor_, context, reactor, request, response,
           [this, name = *calibration](const auto& in, auto* out) {
             const auto map = maps_.Get(name, in);
             return map.ok() ? Answer(in, **map, out) : map.status();
           });
  return reactor;
}

grpc::ServerUnaryReactor* AllocationServiceImpl::GetRateDistortionCurve(
    grpc::CallbackServerContext* context,
    const v1::GetRateDistortionCurveRequest* request,
    v1::RateDistortionCurve* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(executor_, context, reactor, request, response,
           [this](const auto& in, auto* out) -> absl::Status {
             const auto name = maps_.ResolveCalibration(in);
             if (!name.ok()) return name.status();
             const auto calibration = registry_->Get(*name);
             if (!calibration.ok()) return calibration.status();
             const auto query = MakeQuery(in, **calibration);
             if (!query.ok()) return query.status();
             auto curve = PlanCurve(**calibration, *query, in);
             if (curve.ok()) *out = *std::move(curve);
             return curve.status();
           });
  return reactor;
}

}  // namespace ratequant::allocation
