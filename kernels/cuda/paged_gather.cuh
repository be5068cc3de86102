#ifndef RATEQUANT_KERNELS_CUDA_PAGED_GATHER_CUH_
#define RATEQUANT_KERNELS_CUDA_PAGED_GATHER_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/paged_rows.cuh"

// Reading positions back: block (x, y) of the grid does tile y of group x.
// Tiles lie at multiples of their size, so that none has rows of two pages.

namespace ratequant::kv::cuda {

// A launch, as its kernel gets it. Everything it points to is device memory.
struct GatherBatch {
  const SectionFormat* formats = nullptr;
  PagedLayer layer;
  SequenceStep state;
  int32_t first = 0;
  int32_t count = 0;
  int32_t tile = 0;
  MutableHeads keys;
  MutableHeads values;
};

template <class Lanes, DType kType>
class GatherTile {
 public:
  __device__ GatherTile(const GatherBatch& batch, int group,
                        const MutableHeads& out, DecodeShared& shared)
      : batch_(batch),
        group_{batch.layer.memory, batch.layer.memory.groups[group],
               batch.state.slot},
        format_(batch.formats[batch.layer.formats[group]]),
        mean_(batch.layer.memory.MeanOf(group)),
        out_(out),
        head_(group / 2),
        shared_(shared) {}

  // Positions [begin, end): sinks, packed tokens, the ring.
  __device__ void Run(int begin, int end) {
    const int sinks = max(begin, min(end, batch_.layer.memory.sink_tokens));
    const int ring = max(
        sinks,
        min(end, group_.Packed(batch_.state.begin, batch_.state.packed_floor)));
    CopyHalves(begin, sinks);
    if (sinks < ring) Decode(sinks, ring);
    CopyHalves(ring, end);
  }

 private:
  __device__ void* Out(int position, int channel) const {
    return HeadRow<kType>(out_, head_, position - batch_.first, channel);
  }

  __device__ void CopyHalves(int begin, int end) const {
    const int octets = batch_.layer.memory.head_dim / kOctet;
    for (int i = threadIdx.x; i < (end - begin) * octets;
         i += kSectionThreads) {
      const int position = begin + i / octets;
      const int channel = i % octets * kOctet;
      float values[kOctet];
      LoadOctet<DType::kFloat16>(group_.HalfRow(position) + channel, values);
      AddMean(mean_, channel, values);
      StoreOctet<kType>(values, Out(position, channel));
    }
  }

  __device__ void Decode(int begin, int end) const {
    DecodeTask task;
    task.section = group_.Section(begin);
    task.rows = Out(begin, 0);
    task.first = begin % batch_.layer.memory.page_tokens;
    task.count = end - begin;
    task.mean = mean_;
    DecodeTile<Lanes, kType>(format_, batch_.layer.memory.head_dim,
                             out_.row_stride, task, shared_)
        .Run(0, task.count);
  }

  const GatherBatch& batch_;
  const PagedGroup group_;
  const SectionFormat& format_;
  const float* const mean_;
  const MutableHeads& out_;
  const int head_;
  DecodeShared& shared_;
};

template <class Lanes, DType kType>
__global__ void __launch_bounds__(kSectionThreads)
    GatherKernel(GatherBatch batch) {
  const int group = static_cast<int>(blockIdx.x);
  const MutableHeads& out = group % 2 == 0 ? batch.keys : batch.values;
  if (out.data == nullptr) return;
  const int start = batch.first - batch.first % batch.tile +
                    static_cast<int>(blockIdx.y) * batch.tile;
  const int begin = max(start, batch.first);
  const int end = min(start + batch.tile, batch.first + batch.count);
  if (begin >= end) return;
  GatherTile<Lanes, kType>(batch, group, out, SharedAs<DecodeShared>())
      .Run(begin, end);
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_GATHER_CUH_
