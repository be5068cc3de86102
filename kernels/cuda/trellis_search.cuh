#ifndef RATEQUANT_KERNELS_CUDA_TRELLIS_SEARCH_CUH_
#define RATEQUANT_KERNELS_CUDA_TRELLIS_SEARCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/trellis_tables.h"
#include "kernels/quantizers/trellis.h"

// TrellisPath (kernels/quantizers/trellis.h) by a warp: half a warp walks a
// row, a lane for each state, and all lanes of it compute the costs of as many
// elements ahead. Metrics are sums of the same floats in the same order, so
// that the path is the same.

namespace ratequant::kv::cuda {

// What a warp keeps of its rows while it searches.
template <class Lanes>
struct TrellisShared {
  static_assert(kWarpLanes == 2 * kTrellisStates);
  alignas(16) float costs[2][kTrellisStates][kTrellisSubsets];
  float z[Lanes::kRowsPerWarp][Lanes::kMaxDim];
  // An element's decisions, then its window (TrellisSubset).
  uint16_t steps[Lanes::kRowsPerWarp][Lanes::kMaxDim];
};

template <class Lanes>
class TrellisSearch {
 public:
  using Values = typename Lanes::Values;
  using Codes = typename Lanes::Codes;

  __device__ TrellisSearch(int width, const TrellisTables& tables,
                           TrellisShared<Lanes>& shared)
      : width_(width), tables_(tables), shared_(shared) {}

  // Codes of the warp's rows, and the indexes of their levels. `z` are scaled
  // to the codebook; rows that aren't `coded` get zeros. All lanes of a warp
  // take part.
  __device__ void Find(const Values& z, bool coded, Codes& codes,
                       Codes& indexes);

 private:
  static constexpr int kDim = Lanes::kMaxDim;
  static constexpr int kRunUp = TrellisRunUp(kDim);
  static constexpr unsigned kTwoRows =
      Lanes::kLanes >= kTrellisStates
          ? kAllLanes
          : (1u << (2 * Lanes::kLanes % kWarpLanes)) - 1;  // their lanes

  // The lane's half of the warp, and what it is there: a state, or one of the
  // elements whose costs are computed.
  static __device__ int Half() { return Lanes::Lane() / kTrellisStates; }
  static __device__ int State() { return Lanes::Lane() % kTrellisStates; }

  // The k of the level of a subset that is next to z, by bisection.
  __device__ __forceinline__ int Nearest(float z, int subset) const {
    int k = 0;
    for (int step = 1 << (width_ - 1) >> 1; step > 0; step /= 2) {
      const int middle = kTrellisSubsets * (k + step - 1) + subset;
      k += tables_.middles[middle] < z ? step : 0;
    }
    return k;
  }

  // The half's row `slot`; `exists`: the warp has it.
  __device__ void FindPath(int slot, bool exists);
  // Walks `count` elements from `first` on, around the circle, and writes their
  // decisions from steps[0] on.
  __device__ void Walk(int slot, bool exists, int first, int count,
                       float& metric);
  // The state before `state`.
  static __device__ __forceinline__ int Back(int state, unsigned decisions) {
    return state >> 1 | static_cast<int>(decisions >> state & 1)
                            << (kTrellisMemory - 1);
  }

  const int width_;
  const TrellisTables& tables_;
  TrellisShared<Lanes>& shared_;
};

template <class Lanes>
__device__ void TrellisSearch<Lanes>::Find(const Values& z, bool coded,
                                           Codes& codes, Codes& indexes) {
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      shared_.z[Lanes::RowSlot()][Lanes::FirstChannel(octet) + i] = z[octet][i];
    }
  }
  const unsigned coded_lanes = __ballot_sync(kAllLanes, coded);
  __syncwarp();
  for (int slot = 0; slot < Lanes::kRowsPerWarp; slot += 2) {
    // Rows of zeros and those that don't exist need no path.
    if ((coded_lanes >> (slot * Lanes::kLanes) & kTwoRows) == 0) continue;
    FindPath(min(slot + Half(), Lanes::kRowsPerWarp - 1),
             slot + Half() < Lanes::kRowsPerWarp);
  }
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      codes[octet][i] = indexes[octet][i] = 0;
      if (!coded) continue;
      const unsigned window =
          shared_.steps[Lanes::RowSlot()][Lanes::FirstChannel(octet) + i];
      const int subset = TrellisSubset(window);
      const int k = Nearest(z[octet][i], subset);
      codes[octet][i] = k << 1 | static_cast<int>(window & 1);
      indexes[octet][i] = kTrellisSubsets * k + subset;
    }
  }
  __syncwarp();  // the next rows reuse the memory
}

template <class Lanes>
__device__ void TrellisSearch<Lanes>::FindPath(int slot, bool exists) {
  uint16_t* const steps = shared_.steps[slot];
  const bool leads = State() == 0 && exists;
  float metric = 0.0f;
  Walk(slot, exists, (kDim - kRunUp / 2) % kDim, kRunUp, metric);
  int cut = State();
#pragma unroll
  for (int step = 1; step < kTrellisStates; step *= 2) {
    const float other_metric = ShuffleXor(metric, step);
    const int other = ShuffleXor(cut, step);
    if (other_metric < metric || (other_metric == metric && other < cut)) {
      metric = other_metric;
      cut = other;
    }
  }
  if (leads) {
    for (int i = kRunUp; i-- > kRunUp / 2;) cut = Back(cut, steps[i]);
  }
  cut = __shfl_sync(kAllLanes, cut, Half() * kTrellisStates);

  metric = State() == cut ? 0.0f : kTrellisFar;
  Walk(slot, exists, 0, kDim, metric);
  if (leads) {
    int state = cut;
#pragma unroll 8
    for (int i = kDim; i-- > 0;) {
      const int before = Back(state, steps[i]);
      steps[i] = static_cast<uint16_t>(before << 1 | (state & 1));
      state = before;
    }
  }
  __syncwarp();
}

template <class Lanes>
__device__ void TrellisSearch<Lanes>::Walk(int slot, bool exists, int first,
                                           int count, float& metric) {
  const float* const z = shared_.z[slot];
  float(&costs)[kTrellisStates][kTrellisSubsets] = shared_.costs[Half()];
  const int low = State() >> 1, high = low | kTrellisStates / 2;
  const unsigned bit = State() & 1;
  const int low_subset = TrellisSubset(static_cast<unsigned>(low) << 1 | bit);
  const int high_subset = TrellisSubset(static_cast<unsigned>(high) << 1 | bit);
  const int base = Half() * kTrellisStates;
  for (int begin = 0; begin < count; begin += kTrellisStates) {
    if (begin + State() < count) {
      const float value = z[(first + begin + State()) % kDim];
#pragma unroll
      for (int subset = 0; subset < kTrellisSubsets; ++subset) {
        const int k = Nearest(value, subset);
        costs[State()][subset] =
            TrellisCost(value, tables_.levels[kTrellisSubsets * k + subset]);
      }
    }
    __syncwarp();
    const int end = min(kTrellisStates, count - begin);
#pragma unroll 4
    for (int i = 0; i < end; ++i) {
      const float by_low =
          __shfl_sync(kAllLanes, metric, base + low) + costs[i][low_subset];
      const float by_high =
          __shfl_sync(kAllLanes, metric, base + high) + costs[i][high_subset];
      const bool upper = by_high < by_low;
      metric = upper ? by_high : by_low;
      const unsigned decisions = __ballot_sync(kAllLanes, upper) >> base;
      if (State() == 0 && exists) {
        shared_.steps[slot][begin + i] = static_cast<uint16_t>(decisions);
      }
    }
    __syncwarp();
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_TRELLIS_SEARCH_CUH_
