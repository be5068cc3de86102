#ifndef RATEQUANT_KERNELS_CUDA_ENCODE_H_
#define RATEQUANT_KERNELS_CUDA_ENCODE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/format_table.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/task.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// Quantizes and packs rows into sections: the bytes that Codec::Encode writes.
struct EncodeLaunch {
  const FormatTable* formats = nullptr;
  const EncodeTask* tasks = nullptr;  // [num_tasks], device
  int num_tasks = 0;
  int max_count = 0;              // no task has more rows; at most page_tokens
  DType dtype = DType::kFloat16;  // of the rows
  int64_t row_stride = 0;         // elements, a multiple of 16 bytes
  FaultWord* fault = nullptr;     // device; see task.h
};

// Starts one kernel for all tasks; does not wait, allocate or read device
// memory, so it can be captured in a CUDA graph. INVALID_ARGUMENT names what
// isn't supported and what is; INTERNAL when the launch failed. Faults in tasks
// and values are found on the device and left in `fault`.
Status LaunchEncode(const EncodeLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ENCODE_H_
