#ifndef RATEQUANT_KERNELS_CUDA_SECTION_KERNEL_CUH_
#define RATEQUANT_KERNELS_CUDA_SECTION_KERNEL_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/section_format.h"
#include "kernels/cuda/task.h"

// What the encoding and the decoding kernel have in common. Block (x, y) of the
// grid does tile y of the rows of task x.

namespace ratequant::kv::cuda {

inline constexpr int kSectionWarps = 4;
inline constexpr int kSectionThreads = kSectionWarps * kWarpLanes;
inline constexpr int kTileRows = 32;
inline constexpr int kMaxCodebook = 256;

// A launch, as its kernel gets it. Everything it points to is device memory.
template <class Task>
struct SectionBatch {
  const SectionFormat* formats = nullptr;  // [num_formats]
  const Task* tasks = nullptr;             // [gridDim.x]
  int64_t row_stride = 0;                  // elements
  int32_t num_formats = 0;
  int32_t head_dim = 0;
  int32_t page_tokens = 0;
  int32_t max_count = 0;
  FaultWord* fault = nullptr;
};

// Reports a fault of the block's task.
__device__ __forceinline__ void ReportFault(FaultWord* fault, int row,
                                            int channel, Fault what) {
  atomicMin(fault, MakeFaultWord(blockIdx.x, static_cast<uint32_t>(row),
                                 static_cast<uint32_t>(channel), what));
}

// Adds mean[channel, channel + 8) to eight values; null: nothing.
__device__ __forceinline__ void AddMean(const float* mean, int channel,
                                        float (&values)[kOctet]) {
  if (mean == nullptr) return;
  float means[kOctet];
  LoadOctet<DType::kFloat32>(mean + channel, means);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) values[i] += means[i];
}

// Reports those of eight values of the block's task that fp16 can't hold, and
// makes them 0.
__device__ __forceinline__ void RefuseBadValues(FaultWord* fault, int row,
                                                int channel,
                                                float (&values)[kOctet]) {
  bool good = true;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    good = good && fabsf(values[i]) <= kMaxHalf;
  }
  if (good) return;
  for (int i = 0; i < kOctet; ++i) {
    if (fabsf(values[i]) <= kMaxHalf) continue;
    const Fault what = values[i] != values[i]              ? Fault::kNan
                       : fabsf(values[i]) <= 3.4028235e38f ? Fault::kTooLarge
                       : values[i] > 0.0f                  ? Fault::kInfinity
                                          : Fault::kNegativeInfinity;
    ReportFault(fault, row, channel + i, what);
    values[i] = 0.0f;
  }
}

// Rows that a block encodes: whole groups of tokens.
__device__ __forceinline__ int TileRows(const SectionFormat& format) {
  return max(format.params.block_tokens, kTileRows);
}

__device__ __forceinline__ bool IsVectorAddress(const void* address) {
  return address != nullptr && (reinterpret_cast<uintptr_t>(address) & 15) == 0;
}

// Whether the kernel can do the task; `granule` counts for encoding alone.
// Thread 0 reports why not. The same for all threads of a block.
template <class Task>
__device__ bool CheckTask(const SectionBatch<Task>& batch, const Task& task,
                          bool whole_granules) {
  Fault what;
  if (task.format < 0 || task.format >= batch.num_formats) {
    what = Fault::kFormat;
  } else if (task.first < 0 || task.count < 0 || task.count > batch.max_count ||
             task.first > batch.page_tokens - task.count) {
    what = Fault::kRange;
  } else if (task.count > 0 &&
             !(IsVectorAddress(task.section) && IsVectorAddress(task.rows))) {
    what = Fault::kPointer;
  } else if (whole_granules &&
             (task.first % batch.formats[task.format].params.block_tokens !=
                  0 ||
              task.count % batch.formats[task.format].params.block_tokens !=
                  0)) {
    what = Fault::kGranule;
  } else {
    return true;
  }
  if (threadIdx.x == 0) ReportFault(batch.fault, 0, 0, what);
  return false;
}

// Bytes of a task's rows before row `row`, relative to the task.
template <DType kType>
__device__ __forceinline__ int64_t RowOffset(int64_t row_stride, int row,
                                             int channel) {
  return (row * row_stride + channel) *
         static_cast<int64_t>(sizeof(typename Element<kType>::Storage));
}

// Copies a table of `count` floats to shared memory, all threads of the block;
// a barrier must follow.
__device__ __forceinline__ void CopyTable(const float* from, int count,
                                          float* to) {
  for (int i = threadIdx.x; i < count; i += kSectionThreads) to[i] = from[i];
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SECTION_KERNEL_CUH_
