#ifndef RATEQUANT_KERNELS_CUDA_PAGED_LAYER_H_
#define RATEQUANT_KERNELS_CUDA_PAGED_LAYER_H_

#include <cstdint>

#include "kernels/cuda/format_table.h"
#include "kernels/cuda/status.h"
#include "kernels/paging/layer_memory.h"
#include "ratequant/kv/heads.h"

namespace ratequant::kv::cuda {

// One layer of a paged cache as kernels see it: pointers are device memory,
// those of `memory` multiples of 16.
struct PagedLayer {
  LayerMemory memory;
  const int32_t* formats = nullptr;  // [kv_heads * 2]: indices of a FormatTable
};

// INVALID_ARGUMENT when the layer lacks something or doesn't go with the table.
Status CheckPagedLayer(const PagedLayer& layer, const FormatTable* formats);

// INVALID_ARGUMENT, under `name`, for a tensor that vectors of 16 bytes can't
// read: null, its data or one of its strides not a multiple of 16 bytes, a
// dtype that isn't one.
Status CheckHeads(const char* name, const ConstHeads& heads, int head_dim);

// CheckHeads of both, which must have one dtype.
Status CheckKeysAndValues(const ConstHeads& keys, const ConstHeads& values,
                          int head_dim);

inline ConstHeads AsConst(const MutableHeads& heads) {
  return {heads.data, heads.dtype, heads.head_stride, heads.row_stride};
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_LAYER_H_
