#ifndef RATEQUANT_KERNELS_CUDA_PAGE_OPS_CUH_
#define RATEQUANT_KERNELS_CUDA_PAGE_OPS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/page_ops.h"

// Copying and zeroing items: block (x, y, z) of the grid does share z of edit x
// in pool y.

namespace ratequant::kv::cuda {

inline constexpr int kEditThreads = 128;
inline constexpr int kEditShares = 4;

static __global__ void __launch_bounds__(kEditThreads)
    EditKernel(const MemoryPool* pools, const ItemEdit* edits) {
  const ItemEdit edit = edits[blockIdx.x];
  if (edit.item < 0) return;
  const MemoryPool pool = pools[blockIdx.y];
  uint4* const to =
      reinterpret_cast<uint4*>(pool.data + edit.item * pool.item_bytes);
  const uint4* const from =
      reinterpret_cast<const uint4*>(pool.data + edit.source * pool.item_bytes);
  for (int64_t i = static_cast<int64_t>(blockIdx.z) * kEditThreads +
                   static_cast<int>(threadIdx.x);
       i < pool.item_bytes / 16; i += kEditShares * kEditThreads) {
    to[i] = edit.source < 0 ? make_uint4(0, 0, 0, 0) : from[i];
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGE_OPS_CUH_
