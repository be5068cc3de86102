#ifndef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_SUMS_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_SUMS_H_

#include <cstddef>

#include "kernels/quantizers/host_device.h"

namespace ratequant::kv {

// How sums over tokens lie side by side: y^2, x^2, then for each quantizer and
// width the sums of e^2, of (y e)^2 over channels, and of (sum over channels of
// y e)^2.
struct SweepSums {
  static constexpr int kPerGroup = 2;
  static constexpr int kPerPair = 3;

  int num_quantizers = 0;
  int num_widths = 0;

  RQ_HOST_DEVICE constexpr size_t Size() const {
    return PairOffset(num_quantizers, 0);
  }
  RQ_HOST_DEVICE constexpr size_t PairOffset(int quantizer, int width) const {
    return kPerGroup +
           (static_cast<size_t>(quantizer) * num_widths + width) * kPerPair;
  }
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_SUMS_H_
