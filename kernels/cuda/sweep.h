#ifndef RATEQUANT_KERNELS_CUDA_SWEEP_H_
#define RATEQUANT_KERNELS_CUDA_SWEEP_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/status.h"
#include "kernels/cuda/sweep_table.h"
#include "kernels/cuda/task.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// Two words of device memory that the launches of one sweep write.
struct SweepReport {
  // The first bad element: its task is 2 * block + (in the gradient), with the
  // blocks of a head one after the other. kNoFault before a launch.
  FaultWord fault = kNoFault;
  // 1 when a value that isn't a sink is not zero. 0 before a launch.
  unsigned long long has_nonzero = 0;
};

// Measures all heads of one tensor of a layer of a sequence with everything in
// a table, and adds to the sums of their groups.
struct SweepLaunch {
  const SweepTable* table = nullptr;
  Tensor tensor = Tensor::kKey;
  DType dtype = DType::kFloat16;
  const void* values = nullptr;     // [heads, tokens, head_dim], device
  const void* gradients = nullptr;  // as values; both multiples of 16
  int heads = 0;
  int tokens = 0;        // a multiple of block_tokens
  int block_tokens = 0;  // a multiple of every TokenMultiple, at most 128
  int sink_tokens = 0;
  double* partials = nullptr;  // [heads * tokens / block_tokens][sums().Size()]
  double* sums = nullptr;      // [heads], device; sums().Size() each
  int64_t sums_stride = 0;     // doubles from a head to the next
  // Laid out as sums: gets the squares of what is added to them. May be null.
  double* squares = nullptr;
  SweepReport* report = nullptr;  // device
};

// Starts two kernels, neither waits nor allocates: the first reads every
// element once and leaves each block's sums in `partials`; the second adds them
// to `sums` in the order of the blocks, so that one input always gives the same
// bits on the same device, and adds nothing when there is a fault.
// INVALID_ARGUMENT names what isn't supported and what is; INTERNAL when a
// launch failed.
Status LaunchSweep(const SweepLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SWEEP_H_
