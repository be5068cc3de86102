#ifndef RATEQUANT_KERNELS_CUDA_SWEEP_ROW_CUH_
#define RATEQUANT_KERNELS_CUDA_SWEEP_ROW_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/sweep_table.h"
#include "kernels/cuda/trellis_search.cuh"
#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// The widths of a sweep, for a kernel.
struct SweepWidths {
  int32_t count = 0;
  int32_t bits[kMaxCodeWidth] = {};
};

// What a warp has added up over its rows, at lanes w and w + 16 that of width
// w.
struct WarpErrors {
  static constexpr int kHalf = kWarpLanes / 2;
  static_assert(kMaxCodeWidth <= kHalf);

  float squares = 0;     // of e^2; at lane w + 16, of (y e)^2
  float projection = 0;  // of (sum over a row's channels of y e)^2

  // Adds what all lanes hold together; of a row's projection, its lanes do.
  template <class Lanes>
  __device__ __forceinline__ void Add(int w, float row_square,
                                      float row_weighted,
                                      float row_projection) {
#pragma unroll
    for (int step = 1; step < Lanes::kLanes; step *= 2) {
      row_projection += ShuffleXor(row_projection, step);
    }
    row_projection *= row_projection;
#pragma unroll
    for (int step = Lanes::kLanes; step < kWarpLanes; step *= 2) {
      row_projection += ShuffleXor(row_projection, step);
    }
    // Each half of the warp adds up one of the two.
    const bool upper = Lanes::Lane() >= kHalf;
    float row_squares = (upper ? row_weighted : row_square) +
                        ShuffleXor(upper ? row_square : row_weighted, kHalf);
#pragma unroll
    for (int step = 1; step < kHalf; step *= 2) {
      row_squares += ShuffleXor(row_squares, step);
    }
    if (Lanes::Lane() % kHalf != w) return;
    squares += row_squares;
    projection += row_projection;
  }
};

// Per channel, what a ColumnGrid has for one width; multiples of 16.
struct ColumnParams {
  const float* zero;  // [head_dim], as the others
  const float* scale;
  const float* reciprocal;
};

// The warp's rows and their gradients, for a quantizer to measure: the engine
// of SweepQuantizer on lanes, in registers. All lanes take part in everything.
template <class Lanes>
class LaneRow {
 public:
  using Vec = float;
  using Values = typename Lanes::Values;

  // `search` is the warp's own.
  __device__ LaneRow(uint64_t seed, Tensor tensor, int head_dim,
                     const SweepWidths& widths, const SweepCodebooks& codebooks,
                     TrellisShared<Lanes>& search)
      : tensor_(tensor),
        head_dim_(head_dim),
        widths_(widths),
        codebooks_(codebooks),
        search_(search),
        signs_(SignBits<Lanes>::Of(seed)) {
    const float norm = InverseSqrtOfDim(Lanes::kMaxDim);
    Each([&](int octet, int i) {
      back_[octet][i] = signs_.Apply(norm, octet, i);
    });
  }

  // Begins with the next rows. Those that don't count, and channels that don't
  // exist, are zeros in both.
  __device__ __forceinline__ void Reset(bool counts) {
    counts_ = counts;
    Each([&](int octet, int i) { values_[octet][i] = x_[octet][i]; });
  }
  __device__ Values& x() { return x_; }
  __device__ Values& y() { return y_; }

  static __device__ __forceinline__ float Set(float value) { return value; }
  static __device__ __forceinline__ float Round(float value, float low,
                                                float high) {
    return rintf(fminf(fmaxf(value, low), high));
  }
  static __device__ __forceinline__ float CopySign(float magnitude,
                                                   float sign) {
    return copysignf(magnitude, sign);
  }

  __device__ Tensor tensor() const { return tensor_; }
  __device__ int dim() const { return head_dim_; }
  __device__ int num_widths() const { return widths_.count; }
  __device__ int width(int w) const { return widths_.bits[w]; }

  __device__ __forceinline__ sweep::ValueRange Range() const {
    cuda::Range range = RangeOfLane(0);
    if (Lanes::kOctets == 2)
      range = Join(range, RangeOfLane(Lanes::kOctets - 1));
    range = RangeOverLanes(range, Lanes::kLanes);
    return {range.low, range.high};
  }

  template <class Map>
  __device__ __forceinline__ void Measure(int w, const Map& map) {
    Each([&](int octet, int i) { decoded_[octet][i] = map(x_[octet][i]); });
    AddErrors(w);
  }

  template <class Grid>
  __device__ __forceinline__ void MeasureGroups(int channels) {
    sweep::ValueRange ranges[Lanes::kOctets];
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      const cuda::Range range =
          RangeOverLanes(RangeOfOctet(x_[octet]), channels / kOctet);
      ranges[octet] = {range.low, range.high};
    }
    RQ_SWEEP_LOOP
    for (int w = 0; w < num_widths(); ++w) {
#pragma unroll
      for (int octet = 0; octet < Lanes::kOctets; ++octet) {
        const sweep::GridMap<Grid, LaneRow> map(ranges[octet], width(w));
#pragma unroll
        for (int i = 0; i < kOctet; ++i) {
          decoded_[octet][i] = map(x_[octet][i]);
        }
      }
      AddErrors(w);
    }
  }

  template <class Grid>
  __device__ __forceinline__ void MeasureColumns(int w,
                                                 const ColumnParams& params) {
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      if (!HasChannel(octet)) continue;
      const int c = Lanes::FirstChannel(octet);
      float zero[kOctet], scale[kOctet], reciprocal[kOctet];
      LoadOctet<DType::kFloat32>(params.zero + c, zero);
      LoadOctet<DType::kFloat32>(params.scale + c, scale);
      LoadOctet<DType::kFloat32>(params.reciprocal + c, reciprocal);
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        decoded_[octet][i] = Grid::template Decode<LaneRow>(
            x_[octet][i], {zero[i], scale[i], reciprocal[i]}, width(w));
      }
    }
    AddErrors(w);
  }

  __device__ __forceinline__ float SumOfSquares() const {
    Values terms;
    Each([&](int octet, int i) {
      terms[octet][i] = values_[octet][i] * values_[octet][i];
    });
    return FoldSumOfRows<Lanes>(terms);
  }
  __device__ __forceinline__ void Rotate() {
    RotateRows<Lanes>(signs_, values_);
  }

  template <class Map>
  __device__ __forceinline__ void Decode(const Map& map) {
    Each(
        [&](int octet, int i) { decoded_[octet][i] = map(values_[octet][i]); });
  }
  // CodebookCode by bisection, all values abreast: one's steps wait for memory.
  __device__ __forceinline__ void DecodeByCodebook(int w, float factor) {
    const int entries = 1 << width(w);
    const float* const thresholds = codebooks_.thresholds + entries;
    typename Lanes::Codes codes;
    Each([&](int octet, int i) { codes[octet][i] = 0; });
#pragma unroll
    for (int step = 1 << (kMaxCodeWidth - 1); step > 0; step /= 2) {
      if (step >= entries) continue;
      Each([&](int octet, int i) {
        int& code = codes[octet][i];
        if (thresholds[code + step - 1] < values_[octet][i] * factor) {
          code += step;
        }
      });
    }
    Each([&](int octet, int i) {
      decoded_[octet][i] = codebooks_.units[entries + codes[octet][i]];
    });
  }
  __device__ __forceinline__ void DecodeByTrellis(int w, float factor) {
    const TrellisTables& tables = codebooks_.trellises[width(w) - 1];
    Values z;
    Each([&](int octet, int i) { z[octet][i] = values_[octet][i] * factor; });
    typename Lanes::Codes codes, indexes;
    TrellisSearch<Lanes>(width(w), tables, search_)
        .Find(z, factor != 0.0f, codes, indexes);
    Each([&](int octet, int i) {
      decoded_[octet][i] = tables.units[indexes[octet][i]];
    });
  }
  __device__ __forceinline__ float Dot() const {
    Values terms;
    Each([&](int octet, int i) {
      terms[octet][i] = values_[octet][i] * decoded_[octet][i];
    });
    return FoldSumOfRows<Lanes>(terms);
  }
  __device__ __forceinline__ void Scale(float scale) {
    Each([&](int octet, int i) { decoded_[octet][i] *= scale; });
  }
  __device__ __forceinline__ void MeasureRotated(int w) {
    HadamardRows<Lanes>(decoded_);
    Each([&](int octet, int i) { decoded_[octet][i] *= back_[octet][i]; });
    AddErrors(w);
  }

  // Sums of y^2 and x^2, where width 0 has those of e^2 and (y e)^2.
  __device__ __forceinline__ void MeasureSquares() {
    float y2 = 0.0f, x2 = 0.0f;
    Each([&](int octet, int i) {
      y2 = __fmaf_rn(y_[octet][i], y_[octet][i], y2);
      x2 = __fmaf_rn(x_[octet][i], x_[octet][i], x2);
    });
    errors_.template Add<Lanes>(0, y2, x2, 0.0f);
  }

  // What the rows since the last call came to.
  __device__ WarpErrors TakeErrors() {
    const WarpErrors taken = errors_;
    errors_ = WarpErrors();
    return taken;
  }

 private:
  // Calls body(octet, i) for every value of the lane.
  template <class Body>
  static __device__ __forceinline__ void Each(const Body& body) {
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) body(octet, i);
    }
  }

  __device__ bool HasChannel(int octet) const {
    return Lanes::FirstChannel(octet) < head_dim_;
  }

  __device__ __forceinline__ cuda::Range RangeOfLane(int octet) const {
    if (HasChannel(octet)) return RangeOfOctet(values_[octet]);
    return {INFINITY, -INFINITY};
  }

  // Zeros in place of what doesn't count or exist needn't decode to zeros.
  __device__ __forceinline__ void AddErrors(int w) {
    float square = 0.0f, weighted = 0.0f, projection = 0.0f;
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      if (!counts_ || !HasChannel(octet)) continue;
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        const float e = decoded_[octet][i] - x_[octet][i];
        const float ye = y_[octet][i] * e;
        square = __fmaf_rn(e, e, square);
        weighted = __fmaf_rn(ye, ye, weighted);
        projection += ye;
      }
    }
    errors_.template Add<Lanes>(w, square, weighted, projection);
  }

  const Tensor tensor_;
  const int head_dim_;
  const SweepWidths& widths_;
  const SweepCodebooks& codebooks_;
  TrellisShared<Lanes>& search_;
  const SignBits<Lanes> signs_;
  Values back_;  // what RotateRowsBack multiplies with, norm and sign in one
  bool counts_ = false;
  Values x_, y_;
  Values values_;   // x, or x rotated
  Values decoded_;  // of `values_`
  WarpErrors errors_;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SWEEP_ROW_CUH_
