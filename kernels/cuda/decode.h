#ifndef RATEQUANT_KERNELS_CUDA_DECODE_H_
#define RATEQUANT_KERNELS_CUDA_DECODE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/format_table.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/task.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// Unpacks and dequantizes rows of sections, in the original basis: the floats
// that Codec::Decode gives.
struct DecodeLaunch {
  const FormatTable* formats = nullptr;
  const DecodeTask* tasks = nullptr;  // [num_tasks], device
  int num_tasks = 0;
  int max_count = 0;              // no task has more rows; at most page_tokens
  DType dtype = DType::kFloat16;  // of the rows
  int64_t row_stride = 0;         // elements, a multiple of 16 bytes
  FaultWord* fault = nullptr;     // device; see task.h
};

// As LaunchEncode.
Status LaunchDecode(const DecodeLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_DECODE_H_
