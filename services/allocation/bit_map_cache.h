#ifndef RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_
#define RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/bit_map.pb.h"
#include "services/allocation/lru_cache.h"
#include "services/allocation/query.h"
#include "services/allocation/registry.h"
#include "services/allocation/single_flight.h"
#include "services/common/metrics.h"

namespace ratequant::allocation {

// Answers to budget queries. The maps come from memory, else from the store,
// else they are solved, once however many ask, and stored; all three give the
// same bytes. What was measured then decides whether a map is the answer.
//
// Nothing expires: the keys name everything that an answer depends on. In the
// store that is the digest of calibration, query and solver version; in memory
// also the state of the model's evaluations.
//
// Thread-safe; solving doesn't hold a lock.
class BitMapCache {
 public:
  // `registry` must outlive it; `memory_bytes` of answers stay in
  // memory.
  BitMapCache(Registry* registry, size_t memory_bytes);

  // The calibration a request means: `request.calibration`, or the model's
  // newest. INVALID_NAME, MODEL_NOT_FOUND, CALIBRATION_NOT_FOUND.
  template <typename Request>
  absl::StatusOr<ChildName> ResolveCalibration(const Request& request) const {
    return Resolve(request.model(), request.calibration());
  }

  using Answer = std::shared_ptr<const v1::GetBitMapResponse>;

  // The response to a request against a resolved calibration, serialized, when
  // memory has it; nullopt when it has to be looked up. Fast: for gRPC's own
  // threads.
  std::optional<grpc::ByteBuffer> Lookup(const ChildName& calibration,
                                         const v1::GetBitMapRequest& request);

  // The answer to a request, never `unchanged`. Errors as GetBitMap documents
  // them.
  absl::StatusOr<Answer> Get(const v1::GetBitMapRequest& request);
  absl::StatusOr<Answer> Get(const ChildName& calibration,
                             const v1::GetBitMapRequest& request);

  // All but the counters of watchers.
  v1::Statistics statistics() const;

 private:
  using Map = std::shared_ptr<const v1::BitMap>;

  absl::StatusOr<ChildName> Resolve(const std::string& model,
                                    const std::string& calibration) const;
  std::string MemoryKey(const ChildName& calibration,
                        const v1::GetBitMapRequest& request) const;
  absl::StatusOr<Answer> Decide(const ChildName& calibration,
                                const v1::GetBitMapRequest& request);
  absl::StatusOr<Map> GetMap(const ChildName& calibration,
                             const v1::GetBitMapRequest& request);
  absl::StatusOr<Map> ReadOrSolve(const ChildName& calibration,
                                  const v1::Calibration& measured,
                                  const Query& query, const std::string& key);

  Registry* const registry_;
  // As they go over the wire: a fraction of their size as messages, and most
  // requests are answered with them as they are.
  LruCache<grpc::ByteBuffer> memory_;
  SingleFlight<absl::StatusOr<Map>> flights_;
  std::atomic<int64_t> stored_{0};  // found in the store
  std::atomic<int64_t> solves_{0};
  prometheus::Histogram& solve_seconds_;
};

// Answers a request that may know the answer's etag already.
void FillResponse(const v1::GetBitMapRequest& request,
                  const v1::GetBitMapResponse& answer,
                  v1::GetBitMapResponse* response);

// The same, serialized.
grpc::ByteBuffer RespondTo(const v1::GetBitMapRequest& request,
                           const v1::GetBitMapResponse& answer);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_
