#ifndef RATEQUANT_KERNELS_CUDA_PAGED_APPEND_CUH_
#define RATEQUANT_KERNELS_CUDA_PAGED_APPEND_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/encode.cuh"
#include "kernels/cuda/paged_rows.cuh"

// Appending a step: one kernel packs what leaves the window, from the ring and
// from the step's tensors; the next writes the new tokens into sinks and ring,
// over what the first has read. Block (x, y) of either grid does tile y of
// group x % groups of step x / groups.

namespace ratequant::kv::cuda {

// A launch, as its kernels get it. Everything it points to is device memory.
struct AppendBatch {
  const SectionFormat* formats = nullptr;  // [num_formats]
  int32_t num_formats = 0;
  int32_t max_tokens = 0;
  PagedLayer layer;
  const SequenceStep* steps = nullptr;
  ConstHeads keys;
  ConstHeads values;
  FaultWord* fault = nullptr;
};

// The block's share of a step.
struct GroupStep {
  __device__ explicit GroupStep(const AppendBatch& batch)
      : index(static_cast<int>(blockIdx.x) % (batch.layer.memory.kv_heads * 2)),
        step(batch.steps[static_cast<int>(blockIdx.x) /
                         (batch.layer.memory.kv_heads * 2)]),
        group{batch.layer.memory, batch.layer.memory.groups[index], step.slot},
        format(batch.layer.formats[index]) {}

  __device__ int end() const { return step.begin + step.count; }
  __device__ int packed_end() const {
    return group.Packed(end(), step.packed_floor);
  }
  __device__ const ConstHeads& heads(const AppendBatch& batch) const {
    return index % 2 == 0 ? batch.keys : batch.values;
  }

  const int index;
  const SequenceStep step;
  const PagedGroup group;
  const int format;
};

// Whether the step is one that the launch can do; thread 0 reports why not.
__device__ __forceinline__ bool CheckStep(const AppendBatch& batch,
                                          const GroupStep& work) {
  const bool in_range =
      work.step.count >= 0 && work.step.count <= batch.max_tokens;
  const bool has_format = work.format >= 0 && work.format < batch.num_formats;
  if (threadIdx.x == 0 && !(in_range && has_format)) {
    ReportFault(batch.fault, 0, 0, in_range ? Fault::kFormat : Fault::kRange);
  }
  return in_range && has_format;
}

// Eight values of the step's row `row`, as fp16 holds them.
template <DType kType>
__device__ __forceinline__ void LoadNewRow(const AppendBatch& batch,
                                           const GroupStep& work, int row,
                                           int channel,
                                           float (&values)[kOctet]) {
  LoadOctet<kType>(HeadRow<kType>(work.heads(batch), work.index / 2,
                                  work.step.first_row + row, channel),
                   values);
  RefuseBadValues(batch.fault, row, channel, values);
  const float* const mean = batch.layer.memory.MeanOf(work.index);
  if (mean != nullptr) {
    float means[kOctet];
    LoadOctet<DType::kFloat32>(mean + channel, means);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] -= means[i];
    RefuseBadValues(batch.fault, row, channel, values);
  }
  if (kType != DType::kFloat16 || mean != nullptr) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] = FromHalf(ToHalf(values[i]));
  }
}

// Positions from `first` on, for EncodeTile: old ones from the ring. Sinks are
// zeros, which is what a section has in their place.
template <DType kType>
class StepRows {
 public:
  __device__ StepRows(const AppendBatch& batch, const GroupStep& work,
                      int first)
      : batch_(batch), work_(work), first_(first) {}

  __device__ void Load(int row, int channel, float (&values)[kOctet]) const {
    const int position = first_ + row;
    if (position < batch_.layer.memory.sink_tokens) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) values[i] = 0.0f;
    } else if (position < work_.step.begin) {
      LoadOctet<DType::kFloat16>(work_.group.HalfRow(position) + channel,
                                 values);
    } else {
      LoadNewRow<kType>(batch_, work_, position - work_.step.begin, channel,
                        values);
    }
  }

 private:
  const AppendBatch& batch_;
  const GroupStep& work_;
  const int first_;
};

template <class Lanes, DType kType>
__global__ void __launch_bounds__(kSectionThreads)
    PackStepKernel(AppendBatch batch) {
  const GroupStep work(batch);
  if (!CheckStep(batch, work)) return;
  const LayerMemory& memory = batch.layer.memory;
  const SectionFormat& format = batch.formats[work.format];
  const int block = work.group.place.block_tokens;
  // Blocks of nothing but sinks stay zero, as encoding would leave them.
  const int begin =
      max(work.group.Packed(work.step.begin, work.step.packed_floor),
          memory.sink_tokens - memory.sink_tokens % block);
  const int end = work.packed_end();
  // Tiles lie at multiples of their size, so that none has rows of two pages.
  const int tile = min(TileRows(format), memory.page_tokens);
  const int start = begin - begin % tile + static_cast<int>(blockIdx.y) * tile;
  const int first = max(start, begin);
  const int rows = min(start + tile, end) - first;
  if (rows <= 0) return;
  EncodeTask task;
  task.section = work.group.Section(first);
  task.first = first % memory.page_tokens;
  task.count = rows;
  task.skip_tokens = memory.sink_tokens - (first - task.first);
  EncodeTile<Lanes, StepRows<kType>>(format, memory.head_dim, task,
                                     StepRows<kType>(batch, work, first),
                                     SharedAs<EncodeShared<Lanes>>())
      .Run(0, rows);
}

template <DType kType>
__global__ void __launch_bounds__(kSectionThreads)
    StoreStepKernel(AppendBatch batch) {
  const GroupStep work(batch);
  if (!CheckStep(batch, work)) return;
  const LayerMemory& memory = batch.layer.memory;
  const int begin = work.step.begin;
  // New sinks, then what stays in the ring.
  const int sinks = max(min(memory.sink_tokens, work.end()) - begin, 0);
  const int ring = max(max(begin, memory.sink_tokens), work.packed_end());
  const int rows = sinks + max(work.end() - ring, 0);
  const int tile = static_cast<int>(blockIdx.y) * kTileRows;
  const int octets = memory.head_dim / kOctet;
  for (int i = threadIdx.x; i < min(rows - tile, kTileRows) * octets;
       i += kSectionThreads) {
    const int row = tile + i / octets;
    const int channel = i % octets * kOctet;
    const int position = row < sinks ? begin + row : ring + row - sinks;
    float values[kOctet];
    LoadNewRow<kType>(batch, work, position - begin, channel, values);
    StoreOctet<DType::kFloat16>(values, work.group.HalfRow(position) + channel);
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_APPEND_CUH_
