#ifndef RATEQUANT_KERNELS_PAGING_LAYER_MEMORY_H_
#define RATEQUANT_KERNELS_PAGING_LAYER_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quantizers/host_device.h"

// Where the tokens of one layer lie, in plain C++ for host and device. The
// cache fills these in; backends read and write what they point to.

namespace ratequant::kv {

// One group (head * 2, + 1 for V) of a layer.
struct GroupPlace {
  uint32_t section_offset = 0;  // bytes, from the page's first
  // Bytes, from the first of the layer's sidecar of a sequence: the sinks, fp16
  // [sink_tokens, head_dim], and behind them the ring, fp16 [ring_tokens,
  // head_dim]. A multiple of 16.
  int64_t sidecar_offset = 0;
  int32_t block_tokens = 1;  // tokens packed together (Codec::token_granule)
  // Position p of a sequence is in slot p % ring_tokens; window +
  // block_tokens - 1, and 0 when nothing ever stays.
  int32_t ring_tokens = 0;
};

// One layer of a cache. Pointers are the backend's memory and stay the same for
// as long as the cache lives.
struct LayerMemory {
  uint8_t* pages = nullptr;     // [num_pages, page_bytes]
  uint8_t* sidecars = nullptr;  // [max_sequences, sidecar_bytes]
  // [max_sequences, max_blocks], shared by all layers: the page of positions
  // [i * page_tokens, (i + 1) * page_tokens) of the sequence in a slot.
  const int32_t* block_table = nullptr;
  const GroupPlace* groups = nullptr;  // [kv_heads * 2]
  // [kv_heads * 2, head_dim]: what is taken off every row that is stored and
  // put back on every row that is read; null: nothing.
  const float* means = nullptr;
  int64_t page_bytes = 0;     // a multiple of 16
  int64_t sidecar_bytes = 0;  // a multiple of 16
  int32_t max_blocks = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t page_tokens = 0;
  int32_t sink_tokens = 0;
  int32_t window = 0;

  // The means of one group; null: there are none.
  RQ_HOST_DEVICE const float* MeanOf(int group) const {
    return means == nullptr ? nullptr
                            : means + static_cast<int64_t>(group) * head_dim;
  }

  // The section that holds position `position` of a group.
  RQ_HOST_DEVICE uint8_t* Section(int slot, const GroupPlace& group,
                                  int position) const {
    const int64_t entry =
        static_cast<int64_t>(slot) * max_blocks + position / page_tokens;
    return pages + block_table[entry] * page_bytes + group.section_offset;
  }

  // The fp16 row of a sink, and of a position in the ring.
  RQ_HOST_DEVICE uint16_t* SinkRow(int slot, const GroupPlace& group,
                                   int position) const {
    return SidecarRow(slot, group, position);
  }
  RQ_HOST_DEVICE uint16_t* RingRow(int slot, const GroupPlace& group,
                                   int position) const {
    return SidecarRow(slot, group, sink_tokens + position % group.ring_tokens);
  }

 private:
  RQ_HOST_DEVICE uint16_t* SidecarRow(int slot, const GroupPlace& group,
                                      int row) const {
    return reinterpret_cast<uint16_t*>(sidecars + slot * sidecar_bytes +
                                       group.sidecar_offset) +
           static_cast<int64_t>(row) * head_dim;
  }
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_PAGING_LAYER_MEMORY_H_
