#ifndef RATEQUANT_CLIENTS_CPP_LOADED_BIT_MAP_H_
#define RATEQUANT_CLIENTS_CPP_LOADED_BIT_MAP_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::client {

// A bit map an engine can use: whole, as the allocator made it, and in formats
// the runtime has. Immutable.
struct LoadedBitMap {
  std::string etag;              // identifies it
  v1::GetBitMapResponse answer;  // the map, and what was measured of it
  kv::KvCacheConfig config;      // to create a cache with (kv_cache.h)
  kv::KvLayout layout;           // where that cache keeps what
};

// Checks an answer that carries a map, and converts it. DATA_LOSS when it has
// no map, or its etag, its map's name and the map's content don't belong
// together; INVALID_ARGUMENT when the runtime hasn't its formats.
absl::StatusOr<std::shared_ptr<const LoadedBitMap>> LoadBitMap(
    v1::GetBitMapResponse answer);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_LOADED_BIT_MAP_H_
