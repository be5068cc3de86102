#ifndef RATEQUANT_KERNELS_CACHE_LAYER_PLACES_H_
#define RATEQUANT_KERNELS_CACHE_LAYER_PLACES_H_

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::kv {

// The longest sequence that positions in int32_t allow for.
inline constexpr int64_t kMaxTokens = int64_t{1} << 30;

// Where the groups of one layer lie in a page and in a sequence's sidecar.
struct LayerPlaces {
  std::vector<GroupPlace> groups;  // [kv_heads * 2]
  int64_t sidecar_bytes = 0;       // of one sequence
};

// For sequences of up to `max_tokens`. `config` must have passed
// ComputeKvLayout.
LayerPlaces ComputeLayerPlaces(const KvCacheConfig& config,
                               const LayerLayout& layout, int layer,
                               int64_t max_tokens);

// Rows [row, row + count) of a group's sidecar.
struct SidecarRows {
  int64_t row = 0;
  int64_t count = 0;
};

// The rows of a group that hold tokens of a sequence of `length` tokens, in the
// tokens' order: sinks, then the ring, which may go round once. Some may be
// empty.
std::array<SidecarRows, 3> LiveSidecarRows(const GroupPlace& place,
                                           const KvCacheConfig& config,
                                           int32_t length,
                                           int32_t packed_floor);

// Rows of a group's sidecar that a sequence of `length` tokens has used.
int64_t UsedSidecarRows(const GroupPlace& place, int sink_tokens,
                        int64_t length);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_LAYER_PLACES_H_
