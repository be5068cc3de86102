#ifndef RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_H_
#define RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_H_

#include <cstdint>

#include "kernels/quantizers/host_device.h"

// Trellis-coded quantization of a row (kernels/FORMAT.md, "Trellis"): a
// codebook twice as large as the codes have room for, cut into four subsets,
// and a convolutional code that says which subset an element may use. Marcellin
// and Fischer, IEEE Trans. Commun. 38(1), 1990; the 16-state code is
// Ungerboeck's (IEEE Trans. Inf. Theory 28(1), 1982, Table I: h0 = 23, h1 = 04
// octal) in feedforward form, and the row is a circle (tail-biting). So a
// subset depends on the lowest bits of five codes side by side, and reading
// needs no trellis.

namespace ratequant::kv {

inline constexpr int kTrellisMemory = 4;  // coded bits in a state
inline constexpr int kTrellisStates = 1 << kTrellisMemory;
inline constexpr int kTrellisSubsets = 4;
inline constexpr int kMaxTrellisWidth = 4;  // wider codes aren't coded

// A path's metric where a path can't begin.
inline constexpr float kTrellisFar = 1e30f;

RQ_HOST_DEVICE constexpr bool IsTrellisWidth(int width) {
  return width <= kMaxTrellisWidth;
}

// Elements that are walked to find the state where the circle is cut: half of
// them before the cut.
RQ_HOST_DEVICE constexpr int TrellisRunUp(int dim) {
  return dim < 64 ? dim : 64;
}

// The subset that `window` allows: bit k is the coded bit of k elements before.
RQ_HOST_DEVICE constexpr int TrellisSubset(unsigned window) {
  const unsigned first = window ^ window >> 1 ^ window >> 4;
  const unsigned second = window >> 2;
  return static_cast<int>((first & 1) * 2 + (second & 1));
}

// Level k of subset s is level 4k + s of the codebook. Of one subset, the k
// whose level is next to z: the number of middles below it.
RQ_HOST_DEVICE inline int NearestInSubset(float z, int subset, int width,
                                          const float* levels) {
  int k = 0;
  for (int i = 0; i + 1 < 1 << (width - 1); ++i) {
    const float* const level = levels + kTrellisSubsets * i + subset;
    k += 0.5f * (level[0] + level[kTrellisSubsets]) < z ? 1 : 0;
  }
  return k;
}

RQ_HOST_DEVICE inline float TrellisCost(float z, float level) {
  const float error = z - level;
  return error * error;
}

// Finds the path of least squared error around the circle, one float after the
// other.
class TrellisPath {
 public:
  // z is [dim], scaled to the codebook, whose `levels` are [2^(width + 1)];
  // element i lies at z[i * stride]. `decisions` is scratch, [dim].
  RQ_HOST_DEVICE TrellisPath(const float* z, int stride, int dim, int width,
                             const float* levels, uint16_t* decisions)
      : z_(z),
        stride_(stride),
        dim_(dim),
        width_(width),
        levels_(levels),
        decisions_(decisions) {}

  // Calls put(i, code, index) for every element, the last one first.
  template <class Put>
  RQ_HOST_DEVICE void Find(const Put& put) {
    const int run_up = TrellisRunUp(dim_);
    float metrics[kTrellisStates];
    for (int s = 0; s < kTrellisStates; ++s) metrics[s] = 0.0f;
    for (int i = 0; i < run_up; ++i) {
      decisions_[i] = Step((dim_ - run_up / 2 + i) % dim_, metrics);
    }
    int cut = 0;
    for (int s = 1; s < kTrellisStates; ++s) {
      if (metrics[s] < metrics[cut]) cut = s;
    }
    for (int i = run_up; i-- > run_up / 2;) cut = Back(cut, decisions_[i]);

    for (int s = 0; s < kTrellisStates; ++s) {
      metrics[s] = s == cut ? 0.0f : kTrellisFar;
    }
    for (int i = 0; i < dim_; ++i) decisions_[i] = Step(i, metrics);
    int state = cut;
    for (int i = dim_; i-- > 0;) {
      const int before = Back(state, decisions_[i]);
      const int bit = state & 1;
      const int subset =
          TrellisSubset(static_cast<unsigned>(before) << 1 | bit);
      const int k = NearestInSubset(z_[i * stride_], subset, width_, levels_);
      put(i, k << 1 | bit, kTrellisSubsets * k + subset);
      state = before;
    }
  }

 private:
  // The state before `state`; decisions have a bit for each state, set where
  // the oldest coded bit is.
  RQ_HOST_DEVICE static int Back(int state, unsigned decisions) {
    const int oldest = static_cast<int>(decisions >> state & 1);
    return state >> 1 | oldest << (kTrellisMemory - 1);
  }

  // One element on; returns the decisions.
  RQ_HOST_DEVICE uint16_t Step(int i, float (&metrics)[kTrellisStates]) const {
    const float z = z_[i * stride_];
    float costs[kTrellisSubsets];
    for (int s = 0; s < kTrellisSubsets; ++s) {
      const int k = NearestInSubset(z, s, width_, levels_);
      costs[s] = TrellisCost(z, levels_[kTrellisSubsets * k + s]);
    }
    float next[kTrellisStates];
    unsigned decisions = 0;
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int state = 0; state < kTrellisStates; ++state) {
      const int low = state >> 1, high = low | kTrellisStates / 2;
      const unsigned bit = state & 1;
      const float by_low =
          metrics[low] +
          costs[TrellisSubset(static_cast<unsigned>(low) << 1 | bit)];
      const float by_high =
          metrics[high] +
          costs[TrellisSubset(static_cast<unsigned>(high) << 1 | bit)];
      const bool upper = by_high < by_low;
      next[state] = upper ? by_high : by_low;
      decisions |= (upper ? 1u : 0u) << state;
    }
    for (int s = 0; s < kTrellisStates; ++s) metrics[s] = next[s];
    return static_cast<uint16_t>(decisions);
  }

  const float* const z_;
  const int stride_;
  const int dim_;
  const int width_;
  const float* const levels_;
  uint16_t* const decisions_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_H_
