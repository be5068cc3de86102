#ifndef RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_
#define RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/bit_map.pb.h"
#include "services/allocation/lru_cache.h"
#include "services/allocation/registry.h"

namespace ratequant::allocation {

// Bit maps: from memory, else from the store, else solved and stored. All three
// give the same bytes. Thread-safe; solving doesn't hold a lock.
class BitMapCache {
 public:
  // `registry` must outlive it.
  explicit BitMapCache(Registry* registry);

  // The calibration a request means: `request.calibration`, or the model's
  // newest. INVALID_NAME, MODEL_NOT_FOUND, CALIBRATION_NOT_FOUND.
  template <typename Request>
  absl::StatusOr<ChildName> ResolveCalibration(const Request& request) const {
    return Resolve(request.model(), request.calibration());
  }

  // What memory has for a request against a resolved calibration; null when it
  // has to be looked up. Fast: for gRPC's own threads.
  std::shared_ptr<const v1::BitMap> Lookup(const ChildName& calibration,
                                           const v1::GetBitMapRequest& request);

  // The answer to a request. Errors as GetBitMap documents them.
  absl::StatusOr<std::shared_ptr<const v1::BitMap>> Get(
      const ChildName& calibration, const v1::GetBitMapRequest& request);

 private:
  absl::StatusOr<ChildName> Resolve(const std::string& model,
                                    const std::string& calibration) const;

  Registry* const registry_;
  LruCache<v1::BitMap> memory_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_CACHE_H_
