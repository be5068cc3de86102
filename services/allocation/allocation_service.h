#ifndef RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_
#define RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_

#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/allocation/bit_map_cache.h"
#include "services/allocation/handler.h"
#include "services/allocation/registry.h"
#include "services/allocation/watch_hub.h"

namespace ratequant::allocation {

// ratequant.v1.AllocationService. Answers in memory are given on gRPC's thread,
// as the bytes that are kept there; watches live in the hub, everything else
// runs on the executor. The arguments must outlive it.
class AllocationServiceImpl
    : public v1::AllocationService::WithRawCallbackMethod_GetBitMap<
          v1::AllocationService::CallbackService> {
 public:
  AllocationServiceImpl(Registry* registry, BitMapCache* maps,
                        WatchHub* watches, CallPath path)
      : registry_(registry), maps_(maps), watches_(watches), path_(path) {}

  grpc::ServerUnaryReactor* GetBitMap(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetRateDistortionCurve(
      grpc::CallbackServerContext* context,
      const v1::GetRateDistortionCurveRequest* request,
      v1::RateDistortionCurve* response) override;

  grpc::ServerUnaryReactor* BatchGetBitMaps(
      grpc::CallbackServerContext* context,
      const v1::BatchGetBitMapsRequest* request,
      v1::BatchGetBitMapsResponse* response) override;
  grpc::ServerWriteReactor<v1::GetBitMapResponse>* WatchBitMap(
      grpc::CallbackServerContext* context,
      const v1::GetBitMapRequest* request) override;
  grpc::ServerUnaryReactor* RecordEvaluation(
      grpc::CallbackServerContext* context,
      const v1::RecordEvaluationRequest* request,
      v1::Evaluation* response) override;

 private:
  Registry* const registry_;
  BitMapCache* const maps_;
  WatchHub* const watches_;
  const CallPath path_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_ALLOCATION_SERVICE_H_
