#ifndef RATEQUANT_KERNELS_CUDA_SWEEP_CUH_
#define RATEQUANT_KERNELS_CUDA_SWEEP_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/shared_memory.h"
#include "kernels/cuda/sweep.h"
#include "kernels/cuda/sweep_row.cuh"
#include "kernels/quantizers/sweep/registry-inl.h"

// One block measures one block of tokens of a head with everything: it reads
// them from device memory once, into shared memory, and every quantizer takes
// its rows from there into registers.

namespace ratequant::kv::cuda {

// Warps of a block: as many as there are registers for.
template <class Lanes>
inline constexpr int kMaxSweepWarps = 16 / Lanes::kOctets;

// A launch, as its kernel gets it. Everything it points to is device memory.
struct SweepBatch {
  const QuantizerSpec* quantizers = nullptr;
  const SweepCodebooks* codebooks = nullptr;
  SweepSums layout;
  SweepWidths widths;
  Tensor tensor = Tensor::kKey;
  DType dtype = DType::kFloat32;
  const void* values = nullptr;
  const void* gradients = nullptr;
  int32_t head_dim = 0;
  int32_t block_tokens = 0;
  int32_t blocks_per_head = 0;
  int32_t sink_tokens = 0;
  // Whether the block's tokens fit in shared memory. Those that don't are read
  // again, from the cache for the most part, for each quantizer.
  bool staged = true;
  double* partials = nullptr;  // [gridDim.x][layout.Size()]
  SweepReport* report = nullptr;
};

template <class Lanes>
struct alignas(16) SweepShared {
  SweepCodebooks codebooks;
  // Of one quantizer at a time.
  union {
    struct {
      alignas(16) float zero[kMaxCodeWidth][Lanes::kMaxDim];
      alignas(16) float scale[kMaxCodeWidth][Lanes::kMaxDim];
      alignas(16) float reciprocal[kMaxCodeWidth][Lanes::kMaxDim];
      sweep::ValueRange ranges[Lanes::kMaxDim];
    } columns;
    TrellisShared<Lanes> searches[kMaxSweepWarps<Lanes>];
  };
  // Of e^2, (y e)^2 and projections.
  float errors[kMaxSweepWarps<Lanes>][kMaxCodeWidth][SweepSums::kPerPair];
  float largest[kMaxSweepWarps<Lanes>];
  // The block's values and gradients come after it, if they are staged.
};

__device__ __forceinline__ void LoadOctetOf(DType dtype, const void* address,
                                            float (&values)[kOctet]) {
  switch (dtype) {
    case DType::kFloat32:
      return LoadOctet<DType::kFloat32>(address, values);
    case DType::kFloat16:
      return LoadOctet<DType::kFloat16>(address, values);
    case DType::kBFloat16:
      return LoadOctet<DType::kBFloat16>(address, values);
  }
}

__device__ __forceinline__ float LoadElementOf(DType dtype, const void* data,
                                               int index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kFloat16 ? FromHalf(bits) : FloatOfBFloat16(bits);
}

template <class Lanes>
class SweepTile {
 public:
  explicit __device__ SweepTile(const SweepBatch& batch)
      : batch_(batch),
        warps_(static_cast<int>(blockDim.x) / kWarpLanes),
        element_(batch.dtype == DType::kFloat32 ? 4 : 2),
        skip_(max(0, min(batch.sink_tokens - static_cast<int>(blockIdx.x) %
                                                 batch.blocks_per_head *
                                                 batch.block_tokens,
                         batch.block_tokens))),
        partials_(batch.partials + blockIdx.x * batch.layout.Size()) {}

  __device__ void Run() {
    Load();
    ScaleGradients(CheckElements());
    MeasureSquares();
    for (int q = 0; q < batch_.layout.num_quantizers; ++q) {
      const QuantizerSpec spec = batch_.quantizers[q];
      sweep::SweepQuantizers::Visit(spec.kind, MeasureWith{*this, spec, q});
    }
  }

 private:
  struct MeasureWith {
    SweepTile& tile;
    const QuantizerSpec& spec;
    int q;
    template <class Quantizer>
    __device__ __forceinline__ void operator()(Quantizer) const {
      tile.template Measure<Quantizer>(spec, q);
    }
  };

  __device__ void Load();
  __device__ float CheckElements() const;
  __device__ void ReportBadElements(const float (&values)[kOctet], float limit,
                                    int row, int channel, int gradient) const;
  __device__ void ScaleGradients(float largest);
  __device__ void LoadRow(int row, bool counts, LaneRow<Lanes>& lane_row) const;

  __device__ void MeasureSquares();
  template <class Quantizer>
  __device__ void Measure(const QuantizerSpec& spec, int q);
  template <class Grid>
  __device__ void MeasureColumns(int first, int count, LaneRow<Lanes>& row);
  template <class Grid>
  __device__ void MakeColumnParams(int start, int end);
  // Adds up what the warps have, for the first `count` widths; thread
  // 3 * w + k < 3 * count gets the k-th sum of width w.
  __device__ double AddWarps(const WarpErrors& mine, int count);

  // Not a member: a compiler that sees where it is reads it as what it is.
  static __device__ __forceinline__ SweepShared<Lanes>& Shared() {
    return SharedAs<SweepShared<Lanes>>();
  }

  const SweepBatch& batch_;
  const int warps_;
  const int element_;  // bytes
  const int skip_;     // sinks at the block's start
  double* const partials_;
  const char* x_ = nullptr;  // the block's, in shared or device memory
  const char* y_ = nullptr;
  float gradient_factor_ = 1.0f;
  double gradient_unit_ = 1.0;  // what squares of scaled gradients count
};

template <class Lanes>
__device__ void SweepTile<Lanes>::Load() {
  constexpr int kCodebookFloats = sizeof(SweepCodebooks) / sizeof(float);
  const int bytes = batch_.block_tokens * batch_.head_dim * element_;
  const int64_t offset = static_cast<int64_t>(blockIdx.x) * bytes;
  x_ = static_cast<const char*>(batch_.values) + offset;
  y_ = static_cast<const char*>(batch_.gradients) + offset;
  if (batch_.staged) {
    uint4* const stage = reinterpret_cast<uint4*>(&Shared() + 1);
    const int vectors = bytes / 16;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      stage[i] = reinterpret_cast<const uint4*>(x_)[i];
      stage[vectors + i] = reinterpret_cast<const uint4*>(y_)[i];
    }
    x_ = reinterpret_cast<const char*>(stage);
    y_ = x_ + bytes;
  }
  if (batch_.codebooks != nullptr) {
    for (int i = threadIdx.x; i < kCodebookFloats; i += blockDim.x) {
      reinterpret_cast<float*>(&Shared().codebooks)[i] =
          reinterpret_cast<const float*>(batch_.codebooks)[i];
    }
  }
  __syncthreads();
}

// Reports what can't be measured, and whether there is anything; gives the
// largest magnitude among the gradients, to all threads.
template <class Lanes>
__device__ float SweepTile<Lanes>::CheckElements() const {
  const int octets = batch_.head_dim / kOctet;
  bool nonzero = false;
  float largest = 0.0f;
  for (int at = threadIdx.x; at < batch_.block_tokens * octets;
       at += blockDim.x) {
    const int row = at / octets;
    float x[kOctet], y[kOctet];
    LoadOctetOf(batch_.dtype, x_ + at * kOctet * element_, x);
    LoadOctetOf(batch_.dtype, y_ + at * kOctet * element_, y);
    ReportBadElements(x, kMaxHalf, row, at % octets * kOctet, 0);
    ReportBadElements(y, 3.4028235e38f, row, at % octets * kOctet, 1);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      nonzero |= row >= skip_ && x[i] != 0.0f;
      largest = fmaxf(largest, fabsf(y[i]));
    }
  }
#pragma unroll
  for (int step = 1; step < kWarpLanes; step *= 2) {
    largest = fmaxf(largest, ShuffleXor(largest, step));
  }
  if (Lanes::Lane() == 0) Shared().largest[Lanes::Warp()] = largest;
  const bool any = __syncthreads_or(nonzero) != 0;
  if (any && threadIdx.x == 0) atomicOr(&batch_.report->has_nonzero, 1ull);
  for (int warp = 0; warp < warps_; ++warp) {
    largest = fmaxf(largest, Shared().largest[warp]);
  }
  return largest;
}

template <class Lanes>
__device__ void SweepTile<Lanes>::ReportBadElements(
    const float (&values)[kOctet], float limit, int row, int channel,
    int gradient) const {
  bool good = true;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) good = good && fabsf(values[i]) <= limit;
  if (good) return;
  for (int i = 0; i < kOctet; ++i) {
    if (fabsf(values[i]) <= limit) continue;
    // What it is, the host reads where it is.
    atomicMin(&batch_.report->fault,
              MakeFaultWord(2 * blockIdx.x + gradient, row, channel + i,
                            Fault::kNan));
  }
}

// Gradients have no natural size: their squares could leave fp32. They are
// scaled by a power of two, exactly, so that the largest is about 1.
template <class Lanes>
__device__ void SweepTile<Lanes>::ScaleGradients(float largest) {
  if (!(largest > 0.0f) || !(largest <= 3.4028235e38f)) return;
  const int biased = static_cast<int>(BitsOfFloat(largest) >> 23);
  const int exponent = max(-126, min(biased - 126, 126));
  gradient_factor_ = FloatOfBits(static_cast<uint32_t>(127 - exponent) << 23);
  gradient_unit_ = ldexp(1.0, 2 * exponent);
}

template <class Lanes>
__device__ void SweepTile<Lanes>::LoadRow(int row, bool counts,
                                          LaneRow<Lanes>& lane_row) const {
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    float(&x)[kOctet] = lane_row.x()[octet];
    float(&y)[kOctet] = lane_row.y()[octet];
    const int channel = Lanes::FirstChannel(octet);
    if (!counts || channel >= batch_.head_dim) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) x[i] = y[i] = 0.0f;
      continue;
    }
    const int offset = (row * batch_.head_dim + channel) * element_;
    LoadOctetOf(batch_.dtype, x_ + offset, x);
    LoadOctetOf(batch_.dtype, y_ + offset, y);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) y[i] *= gradient_factor_;
  }
  lane_row.Reset(counts);
}

template <class Lanes>
__device__ void SweepTile<Lanes>::MeasureSquares() {
  LaneRow<Lanes> row(0, batch_.tensor, batch_.head_dim, batch_.widths,
                     Shared().codebooks, Shared().searches[Lanes::Warp()]);
  for (int base = Lanes::Warp() * Lanes::kRowsPerWarp;
       base < batch_.block_tokens; base += warps_ * Lanes::kRowsPerWarp) {
    const int t = base + Lanes::RowSlot();
    LoadRow(t, t >= skip_ && t < batch_.block_tokens, row);
    row.MeasureSquares();
  }
  const double sum = AddWarps(row.TakeErrors(), 1);
  if (threadIdx.x == 0) partials_[0] = sum * gradient_unit_;
  if (threadIdx.x == 1) partials_[1] = sum;
}

// Not inline: quantizers side by side would want more registers than there are.
template <class Lanes>
template <class Quantizer>
[[gnu::noinline]] __device__ void SweepTile<Lanes>::Measure(
    const QuantizerSpec& spec, int q) {
  LaneRow<Lanes> row(spec.seed, batch_.tensor, batch_.head_dim, batch_.widths,
                     Shared().codebooks, Shared().searches[Lanes::Warp()]);
  const int group = Quantizer::ColumnTokens(spec, batch_.tensor);
  if (group > 0) {
    for (int first = 0; first < batch_.block_tokens; first += group) {
      MeasureColumns<typename Quantizer::ColumnGrid>(first, group, row);
    }
  } else {
    for (int base = Lanes::Warp() * Lanes::kRowsPerWarp;
         base < batch_.block_tokens; base += warps_ * Lanes::kRowsPerWarp) {
      const int t = base + Lanes::RowSlot();
      LoadRow(t, t >= skip_ && t < batch_.block_tokens, row);
      Quantizer::MeasureRow(row, spec);
    }
  }
  const int count = batch_.widths.count;
  const double sum = AddWarps(row.TakeErrors(), count);
  const int at = static_cast<int>(threadIdx.x);
  if (at >= SweepSums::kPerPair * count) return;
  const bool of_gradients = at % SweepSums::kPerPair != 0;
  partials_[batch_.layout.PairOffset(q, 0) + at] =
      of_gradients ? sum * gradient_unit_ : sum;
}

// `count` tokens from `first` on, each channel with its grids.
template <class Lanes>
template <class Grid>
__device__ void SweepTile<Lanes>::MeasureColumns(int first, int count,
                                                 LaneRow<Lanes>& row) {
  const int start = max(first, skip_), end = first + count;
  if (start >= end) return;  // all sinks, for all threads
  MakeColumnParams<Grid>(start, end);
  __syncthreads();
  const auto& columns = Shared().columns;
  for (int base = first + Lanes::Warp() * Lanes::kRowsPerWarp; base < end;
       base += warps_ * Lanes::kRowsPerWarp) {
    const int t = base + Lanes::RowSlot();
    LoadRow(t, t >= start && t < end, row);
    RQ_SWEEP_LOOP
    for (int w = 0; w < batch_.widths.count; ++w) {
      row.template MeasureColumns<Grid>(
          w, {columns.zero[w], columns.scale[w], columns.reciprocal[w]});
    }
  }
  __syncthreads();  // the next group has other parameters
}

template <class Lanes>
template <class Grid>
__device__ void SweepTile<Lanes>::MakeColumnParams(int start, int end) {
  const int dim = batch_.head_dim;
  auto& columns = Shared().columns;
  for (int c = threadIdx.x; c < dim; c += blockDim.x) {
    Range range = {INFINITY, -INFINITY};
    for (int t = start; t < end; ++t) {
      range = Extend(range, LoadElementOf(batch_.dtype, x_, t * dim + c));
    }
    columns.ranges[c] = {range.low, range.high};
  }
  __syncthreads();
  for (int at = threadIdx.x; at < batch_.widths.count * dim; at += blockDim.x) {
    const int w = at / dim, c = at % dim;
    const sweep::GridParams<float> grid =
        Grid::Make(columns.ranges[c], batch_.widths.bits[w]);
    columns.zero[w][c] = grid.zero;
    columns.scale[w][c] = grid.scale;
    columns.reciprocal[w][c] = grid.reciprocal;
  }
}

template <class Lanes>
__device__ double SweepTile<Lanes>::AddWarps(const WarpErrors& mine,
                                             int count) {
  const int lane_width = Lanes::Lane() % WarpErrors::kHalf;
  if (lane_width < count) {
    float(&errors)[SweepSums::kPerPair] =
        Shared().errors[Lanes::Warp()][lane_width];
    const bool upper = Lanes::Lane() >= WarpErrors::kHalf;
    errors[upper ? 1 : 0] = mine.squares;
    if (upper) errors[2] = mine.projection;
  }
  __syncthreads();
  double sum = 0.0;
  const int w = static_cast<int>(threadIdx.x) / SweepSums::kPerPair;
  const int k = static_cast<int>(threadIdx.x) % SweepSums::kPerPair;
  if (w < count) {
    for (int warp = 0; warp < warps_; ++warp)
      sum += Shared().errors[warp][w][k];
  }
  __syncthreads();  // the next quantizer has other errors
  return sum;
}

template <class Lanes>
__global__ void __launch_bounds__(kMaxSweepWarps<Lanes>* kWarpLanes)
    SweepKernel(const __grid_constant__ SweepBatch batch) {
  SweepTile<Lanes>(batch).Run();
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SWEEP_CUH_
