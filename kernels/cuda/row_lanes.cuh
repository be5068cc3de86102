#ifndef RATEQUANT_KERNELS_CUDA_ROW_LANES_CUH_
#define RATEQUANT_KERNELS_CUDA_ROW_LANES_CUH_

#include <cuda_runtime.h>

#include "kernels/cuda/octet.cuh"
#include "kernels/quantizers/rotation.h"

// How the lanes of a warp share out rows, and what they compute together on
// one: every result has the bits that the scalar code in
// kernels/quantizers/rotation.h gives.

namespace ratequant::kv::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// kLanesPerRow lanes, side by side, hold a row; lane i of them the octets
// i and, if kOctetsPerLane is 2, i + 32. Those beyond head_dim are idle; a
// rotated row has none. All lanes of a warp take part in everything here.
template <int kLanesPerRow, int kOctetsPerLane>
struct RowLanes {
  static_assert(kOctetsPerLane == 1 || kLanesPerRow == kWarpLanes);
  static constexpr int kLanes = kLanesPerRow;
  static constexpr int kOctets = kOctetsPerLane;
  static constexpr int kRowsPerWarp = kWarpLanes / kLanes;
  static constexpr int kMaxDim = kOctet * kLanes * kOctets;

  // A lane's share of a row.
  using Values = float[kOctets][kOctet];
  using Codes = int[kOctets][kOctet];

  static __device__ int Warp() { return threadIdx.x / kWarpLanes; }
  static __device__ int Lane() { return threadIdx.x % kWarpLanes; }
  // Which of the warp's rows the lane works on, and where in it.
  static __device__ int RowSlot() { return Lane() / kLanes; }
  static __device__ int LaneInRow() { return Lane() % kLanes; }
  static __device__ int FirstChannel(int octet) {
    return (LaneInRow() + octet * kWarpLanes) * kOctet;
  }
};

template <class T>
__device__ __forceinline__ T ShuffleXor(T value, int lane_mask) {
  return __shfl_xor_sync(kAllLanes, value, lane_mask);
}

// What the lane before has, of those that hold a row; the first lane gets the
// last one's.
template <class Lanes, class T>
__device__ __forceinline__ T FromPreviousLane(T value) {
  return __shfl_sync(kAllLanes, value,
                     (Lanes::LaneInRow() + Lanes::kLanes - 1) % Lanes::kLanes,
                     Lanes::kLanes);
}

// Smallest and largest. A zero may come out with either sign; see
// AsymmetricZero.
struct Range {
  float low;
  float high;
};

__device__ __forceinline__ Range Extend(Range range, float value) {
  return {value < range.low ? value : range.low,
          value > range.high ? value : range.high};
}
__device__ __forceinline__ Range Join(Range a, Range b) {
  return {b.low < a.low ? b.low : a.low, b.high > a.high ? b.high : a.high};
}

__device__ __forceinline__ Range RangeOfOctet(const float (&values)[kOctet]) {
  Range range = {values[0], values[0]};
#pragma unroll
  for (int j = 1; j < kOctet; ++j) range = Extend(range, values[j]);
  return range;
}

// The range over `lanes` lanes side by side, a power of two; all get it.
__device__ __forceinline__ Range RangeOverLanes(Range range, int lanes) {
  for (int step = 1; step < lanes; step *= 2) {
    range = Join(range,
                 {ShuffleXor(range.low, step), ShuffleXor(range.high, step)});
  }
  return range;
}

// HadamardTransform of every row of the warp.
template <class Lanes>
__device__ __forceinline__ void HadamardRows(typename Lanes::Values& values) {
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    float(&v)[kOctet] = values[octet];
#pragma unroll
    for (int half = 1; half < kOctet; half *= 2) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        if (i & half) continue;
        const float a = v[i];
        const float b = v[i + half];
        v[i] = a + b;
        v[i + half] = a - b;
      }
    }
#pragma unroll
    for (int step = 1; step < Lanes::kLanes; step *= 2) {
      // The product with +-1 is exact, so that fusing it changes nothing.
      const float sign = (Lanes::Lane() & step) != 0 ? -1.0f : 1.0f;
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        v[i] = __fmaf_rn(v[i], sign, ShuffleXor(v[i], step));
      }
    }
  }
  if (Lanes::kOctets == 2) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const float a = values[0][i];
      const float b = values[Lanes::kOctets - 1][i];
      values[0][i] = a + b;
      values[Lanes::kOctets - 1][i] = a - b;
    }
  }
}

// The signs of a lane's channels under `seed`, one bit each, set for -1.
template <class Lanes>
struct SignBits {
  uint32_t bits[Lanes::kOctets];

  static __device__ SignBits Of(uint64_t seed) {
    SignBits signs;
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      const int channel = Lanes::FirstChannel(octet);
      signs.bits[octet] = static_cast<uint32_t>(
          SplitMix64(seed, channel / 64) >> (channel % 64) & 0xFF);
    }
    return signs;
  }

  // value * sign.
  __device__ float Apply(float value, int octet, int i) const {
    return bits[octet] >> i & 1 ? -value : value;
  }
};

// Rotate and RotateBack of every row of the warp.
template <class Lanes>
__device__ __forceinline__ void RotateRows(const SignBits<Lanes>& signs,
                                           typename Lanes::Values& values) {
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      values[octet][i] = signs.Apply(values[octet][i], octet, i);
    }
  }
  HadamardRows<Lanes>(values);
  const float norm = InverseSqrtOfDim(Lanes::kMaxDim);
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[octet][i] *= norm;
  }
}

template <class Lanes>
__device__ __forceinline__ void RotateRowsBack(const SignBits<Lanes>& signs,
                                               typename Lanes::Values& values) {
  HadamardRows<Lanes>(values);
  const float norm = InverseSqrtOfDim(Lanes::kMaxDim);
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      values[octet][i] = signs.Apply(values[octet][i] * norm, octet, i);
    }
  }
}

// Sums of kCount values over the lanes of a row, spread over these lanes: while
// a lane has several sums left it keeps one half of them and hands the other to
// its partner, so that kCount - 1 shuffles do what kCount * log2(lanes) would.
// Lane l gets, in values[0] and on, the sums from l * kCount / kLanes on; where
// kCount is less than kLanes, lanes side by side get the same sum.
template <int kCount, int kLanes>
__device__ __forceinline__ void SumOverLanes(float (&values)[kCount]) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int step = kLanes / 2, kept = kCount; step >= 1; step /= 2) {
    if (kept == 1) {
      values[0] = values[0] + ShuffleXor(values[0], step);
      continue;
    }
    kept /= 2;
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i >= kept) break;
      const float mine = upper ? values[i + kept] : values[i];
      const float other = upper ? values[i] : values[i + kept];
      values[i] = mine + ShuffleXor(other, step);
    }
  }
}

// FoldSum of every row of the warp; all lanes of a row get it. Adding upper to
// lower half means lanes first, then within the octet; the order of the
// additions of each sum is the same.
template <class Lanes>
__device__ __forceinline__ float FoldSumOfRows(
    const typename Lanes::Values& values) {
  float v[kOctet];
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    v[i] = Lanes::kOctets == 2 ? values[0][i] + values[Lanes::kOctets - 1][i]
                               : values[0][i];
  }
  constexpr int kLanes = Lanes::kLanes;
  constexpr int kLeft =
      kLanes >= 8 ? 1 : kOctet / kLanes;  // sums per lane after the halving
  SumOverLanes<kOctet, kLanes>(v);
  // What is left are the 8 sums of the octet, spread over lanes as far as there
  // were lanes: fold 4, 2, 1.
#pragma unroll
  for (int half = kOctet / 2, step = kLanes / 2, kept = kLeft; half >= 1;
       half /= 2, step /= 2) {
    if (step >= 1) {
#pragma unroll
      for (int i = 0; i < kLeft; ++i) v[i] = v[i] + ShuffleXor(v[i], step);
    } else {
      kept /= 2;
#pragma unroll
      for (int i = 0; i < kLeft; ++i) {
        if (i < kept) v[i] = v[i] + v[i + kept];
      }
    }
  }
  return v[0];
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ROW_LANES_CUH_
