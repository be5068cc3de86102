#ifndef RATEQUANT_KERNELS_CUDA_ATTENTION_COMBINE_CUH_
#define RATEQUANT_KERNELS_CUDA_ATTENTION_COMBINE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_plan.cuh"
#include "kernels/cuda/attention_unit.cuh"

// Puts the pieces of a (sequence, KV head) pair together, turns what comes from
// rotated V back, and writes the output.

namespace ratequant::kv::cuda {

// Pieces of a pair: [first, first + count) over the pages, and the tail.
struct PairPieces {
  int first = 0;
  int count = 0;
  int tail = 0;

  __device__ static PairPieces Of(const AttentionBatch& batch, int pair) {
    const int kv_heads = batch.layer.memory.kv_heads;
    const PairSpan span = PairSpan::Of(batch, pair / kv_heads, pair % kv_heads);
    PairPieces pieces;
    pieces.tail = batch.TailOf(pair);
    if (span.pages == 0) return pieces;
    const int cta = span.FirstCta(*batch.share);
    pieces.first = pair + cta;
    pieces.count = span.LastCta(*batch.share) - cta + 1;
    return pieces;
  }
};

// One query row, over the lanes of a row; all lanes of a warp take part.
template <class Lanes>
class CombineRow {
 public:
  __device__ CombineRow(const AttentionBatch& batch, const PairPieces& pieces,
                        int row)
      : batch_(batch), pieces_(pieces), row_(row) {}

  // The lane's octet of the output, where the row exists.
  __device__ void Run(const SectionFormat& value_format, bool exists,
                      float (&out)[kOctet]) {
    typename Lanes::Values packed;
    float tail[kOctet];
#pragma unroll
    for (int i = 0; i < kOctet; ++i) packed[0][i] = tail[i] = 0.0f;
    if (exists) {
      highest_ = Stat(pieces_.tail, 0);
      for (int i = 0; i < pieces_.count; ++i) {
        highest_ = fmaxf(highest_, Stat(pieces_.first + i, 0));
      }
#pragma unroll 4
      for (int i = 0; i < pieces_.count; ++i) Add(pieces_.first + i, packed[0]);
      Add(pieces_.tail, tail);
    }
    if (value_format.kind == CodeKind::kRotatedRow ||
        value_format.kind == CodeKind::kCodebookRow) {
      RotateRowsBack<Lanes>(SignBits<Lanes>::Of(value_format.seed), packed);
    }
    const float reciprocal = ReciprocalOrZero(sum_);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      out[i] = (packed[0][i] + tail[i]) * reciprocal;
    }
  }

 private:
  __device__ int64_t Index(int piece) const {
    return static_cast<int64_t>(piece) * batch_.rows + row_;
  }
  __device__ float Stat(int piece, int which) const {
    return batch_.stats[Index(piece) * 2 + which];
  }
  __device__ void Add(int piece, float (&total)[kOctet]) {
    const float weight = exp2f(Stat(piece, 0) - highest_);
    sum_ = __fmaf_rn(weight, Stat(piece, 1), sum_);
    const int channel = Lanes::FirstChannel(0);
    const int head_dim = batch_.layer.memory.head_dim;
    if (channel >= head_dim) return;
    float values[kOctet];
    LoadOctet<DType::kFloat32>(batch_.sums + Index(piece) * head_dim + channel,
                               values);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      total[i] = __fmaf_rn(weight, values[i], total[i]);
    }
  }

  const AttentionBatch& batch_;
  const PairPieces& pieces_;
  const int row_;
  float highest_ = kNoScore;
  float sum_ = 0.0f;
};

template <class Lanes>
__device__ void StoreOutput(const AttentionBatch& batch, int head, int row,
                            const float (&values)[kOctet]) {
  const int channel = Lanes::FirstChannel(0);
  if (channel >= batch.layer.memory.head_dim) return;
  switch (batch.out.dtype) {
    case DType::kFloat32:
      return StoreOctet<DType::kFloat32>(
          values, HeadRow<DType::kFloat32>(batch.out, head, row, channel));
    case DType::kFloat16:
      return StoreOctet<DType::kFloat16>(
          values, HeadRow<DType::kFloat16>(batch.out, head, row, channel));
    case DType::kBFloat16:
      return StoreOctet<DType::kBFloat16>(
          values, HeadRow<DType::kBFloat16>(batch.out, head, row, channel));
  }
}

// Block x does pair x.
template <class Lanes>
__global__ void __launch_bounds__(kSectionThreads)
    CombineKernel(AttentionBatch batch) {
  const int pair = static_cast<int>(blockIdx.x);
  const int kv_heads = batch.layer.memory.kv_heads;
  const int kv_head = pair % kv_heads;
  const SequenceStep step = batch.steps[pair / kv_heads];
  const int rows = batch.RowsOf(step);
  const PairPieces pieces = PairPieces::Of(batch, pair);
  const SectionFormat& value_format =
      batch.formats[batch.layer.formats[2 * kv_head + 1]];
  for (int base = Lanes::Warp() * Lanes::kRowsPerWarp; base < rows;
       base += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = base + Lanes::RowSlot();
    float out[kOctet];
    CombineRow<Lanes>(batch, pieces, row).Run(value_format, row < rows, out);
    if (row >= rows) continue;
    const int channel = Lanes::FirstChannel(0);
    if (channel < batch.layer.memory.head_dim) {
      AddMean(batch.layer.memory.MeanOf(2 * kv_head + 1), channel, out);
    }
    StoreOutput<Lanes>(batch,
                       kv_head * batch.heads_per_kv + row % batch.heads_per_kv,
                       step.first_row + row / batch.heads_per_kv, out);
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ATTENTION_COMBINE_CUH_
