#ifndef RATEQUANT_CLIENTS_CPP_CACHE_CONFIG_H_
#define RATEQUANT_CLIENTS_CPP_CACHE_CONFIG_H_

#include "absl/status/statusor.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/v1/bit_map.pb.h"

namespace ratequant::client {

// What a cache in the bit map's format stores, to create one with
// (ratequant/kv/kv_cache.h); sinks, window and pages are the map's, or the
// defaults where it has none. INVALID_ARGUMENT when the map's arrays don't fit
// its geometry or name a quantizer that isn't there, or its bytes are counted
// in another version of the packed format. Whether the runtime has the formats
// is for it to say.
absl::StatusOr<kv::KvCacheConfig> CacheConfigOf(const v1::BitMap& map);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CACHE_CONFIG_H_
