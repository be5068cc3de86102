#ifndef RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_
#define RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_

#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/allocation/bit_map_cache.h"
#include "services/allocation/executor.h"
#include "services/allocation/registry.h"

namespace ratequant::allocation {

// ratequant.v1.AllocationService. Bit maps in memory are answered on gRPC's
// thread, everything else on the executor. Both arguments must outlive it.
class AllocationServiceImpl : public v1::AllocationService::CallbackService {
 public:
  AllocationServiceImpl(Registry* registry, Executor* executor)
      : registry_(registry), executor_(executor), maps_(registry) {}

  grpc::ServerUnaryReactor* GetBitMap(grpc::CallbackServerContext* context,
                                      const v1::GetBitMapRequest* request,
                                      v1::GetBitMapResponse* response) override;
  grpc::ServerUnaryReactor* GetRateDistortionCurve(
      grpc::CallbackServerContext* context,
      const v1::GetRateDistortionCurveRequest* request,
      v1::RateDistortionCurve* response) override;

 private:
  Registry* const registry_;
  Executor* const executor_;
  BitMapCache maps_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_
