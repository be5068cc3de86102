#ifndef RATEQUANT_KERNELS_CUDA_PAGED_ROWS_CUH_
#define RATEQUANT_KERNELS_CUDA_PAGED_ROWS_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/paged_layer.h"
#include "kernels/cuda/section_kernel.cuh"
#include "kernels/paging/sequence_step.h"

// Where the paged kernels find rows: those of a group of a slot, and of the
// caller's tensors.

namespace ratequant::kv::cuda {

// One group of the sequence in one slot.
struct PagedGroup {
  const LayerMemory& memory;
  const GroupPlace& place;
  int slot;

  // See sequence_step.h.
  __device__ int Packed(int length, int packed_floor) const {
    return PackedEnd(length, memory.window, place.block_tokens, packed_floor);
  }
  // The row of its page that a position is; pages are powers of two.
  __device__ int PageRow(int position) const {
    return position & (memory.page_tokens - 1);
  }
  __device__ uint8_t* Section(int position) const {
    return memory.Section(slot, place, position);
  }
  // The fp16 row of a position that isn't packed.
  __device__ uint16_t* HalfRow(int position) const {
    return position < memory.sink_tokens
               ? memory.SinkRow(slot, place, position)
               : memory.RingRow(slot, place, position);
  }
};

// Address of a channel of row `row` of head `head`; `Heads` is ConstHeads or
// MutableHeads.
template <DType kType, class Heads>
__device__ __forceinline__ auto* HeadRow(const Heads& heads, int head, int row,
                                         int channel) {
  using Storage = typename Element<kType>::Storage;
  using Row = std::conditional_t<std::is_same_v<Heads, ConstHeads>,
                                 const Storage, Storage>;
  return static_cast<Row*>(heads.data) + head * heads.head_stride +
         row * heads.row_stride + channel;
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_ROWS_CUH_
