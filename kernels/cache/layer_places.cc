#include "kernels/cache/layer_places.h"

#include <algorithm>

#include "kernels/quantizers/section_layout.h"

namespace ratequant::kv {
namespace {

int BlockTokens(const GroupFormat& format, bool is_key) {
  return format.width != kFp16Width && is_key &&
                 format.quantizer.kind == QuantizerKind::kKivi
             ? format.quantizer.group_size
             : 1;
}

}  // namespace

LayerPlaces ComputeLayerPlaces(const KvCacheConfig& config,
                               const LayerLayout& layout, int layer,
                               int64_t max_tokens) {
  const int groups = config.geometry.kv_heads * 2;
  const int64_t row_bytes = int64_t{2} * config.geometry.head_dim;
  LayerPlaces places;
  for (int g = 0; g < groups; ++g) {
    GroupPlace place;
    place.section_offset = static_cast<uint32_t>(layout.section_offset[g]);
    place.sidecar_offset = places.sidecar_bytes;
    place.block_tokens =
        BlockTokens(config.groups[layer * groups + g], g % 2 == 0);
    place.ring_tokens = static_cast<int32_t>(std::min<int64_t>(
        int64_t{config.window} + place.block_tokens - 1, max_tokens));
    places.groups.push_back(place);
    // head_dim is a multiple of 8, so that this is one of 16.
    places.sidecar_bytes +=
        (config.sink_tokens + place.ring_tokens) * row_bytes;
  }
  return places;
}

std::array<SidecarRows, 3> LiveSidecarRows(const GroupPlace& place,
                                           const KvCacheConfig& config,
                                           int32_t length,
                                           int32_t packed_floor) {
  std::array<SidecarRows, 3> rows;
  rows[0].count = std::min(length, config.sink_tokens);
  const int32_t first = std::max(
      config.sink_tokens,
      PackedEnd(length, config.window, place.block_tokens, packed_floor));
  if (first >= length) return rows;
  const int32_t slot = first % place.ring_tokens;
  const int32_t run = std::min(length - first, place.ring_tokens - slot);
  rows[1] = {config.sink_tokens + slot, run};
  rows[2] = {config.sink_tokens, length - first - run};
  return rows;
}

int64_t UsedSidecarRows(const GroupPlace& place, int sink_tokens,
                        int64_t length) {
  const int64_t sinks = std::min<int64_t>(length, sink_tokens);
  return sinks + std::min<int64_t>(length - sinks, place.ring_tokens);
}

}  // namespace ratequant::kv
