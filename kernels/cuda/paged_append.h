#ifndef RATEQUANT_KERNELS_CUDA_PAGED_APPEND_H_
#define RATEQUANT_KERNELS_CUDA_PAGED_APPEND_H_

#include <cuda_runtime.h>

#include "kernels/cuda/paged_layer.h"
#include "kernels/cuda/task.h"
#include "kernels/paging/sequence_step.h"

namespace ratequant::kv::cuda {

// Stores the new tokens of a step in one layer: quantizes and packs what leaves
// the window, then writes sinks and ring. The bytes are those that the CPU's
// GroupRows::Append writes, in whatever pieces tokens come.
struct AppendLaunch {
  const FormatTable* formats = nullptr;
  PagedLayer layer;
  const SequenceStep* steps = nullptr;  // [num_steps], device
  int num_steps = 0;
  int max_tokens = 0;  // no step has more; at most kMaxStepTokens
  ConstHeads keys;     // [kv_heads, rows, head_dim], device; one dtype
  ConstHeads values;   // the same
  // Device; see task.h. Task step * kv_heads * 2 + group, row of the step's.
  // A value that fp16 can't hold is stored as 0, a step with more tokens than
  // max_tokens (kRange) not at all.
  FaultWord* fault = nullptr;
};

inline constexpr int kMaxStepTokens = kMaxFaultRows;

// Starts two kernels, whose grids depend on num_steps and max_tokens alone;
// does not wait, allocate or read device memory, so it can be captured in a
// CUDA graph and replayed with other steps. INVALID_ARGUMENT names what isn't
// supported and what is; INTERNAL when a launch failed.
Status LaunchAppend(const AppendLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_APPEND_H_
