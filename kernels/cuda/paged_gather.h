#ifndef RATEQUANT_KERNELS_CUDA_PAGED_GATHER_H_
#define RATEQUANT_KERNELS_CUDA_PAGED_GATHER_H_

#include <cuda_runtime.h>

#include "kernels/cuda/paged_layer.h"
#include "kernels/paging/sequence_step.h"

namespace ratequant::kv::cuda {

// Reads positions of one sequence of one layer back, in the original basis:
// the floats of the CPU's GroupRows::Gather.
struct GatherLaunch {
  const FormatTable* formats = nullptr;
  PagedLayer layer;
  SequenceStep state;  // slot, begin: tokens of the sequence, packed_floor
  int first = 0;       // positions [first, first + count)
  int count = 0;
  MutableHeads keys;    // [kv_heads, count, head_dim], device; null: not wanted
  MutableHeads values;  // the same; both have one dtype
};

// Starts one kernel; capturable as LaunchAppend is, with the positions that the
// launch has. INVALID_ARGUMENT also for positions outside the sequence.
Status LaunchGather(const GatherLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_GATHER_H_
