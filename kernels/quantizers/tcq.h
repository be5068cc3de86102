#ifndef RATEQUANT_KERNELS_QUANTIZERS_TCQ_H_
#define RATEQUANT_KERNELS_QUANTIZERS_TCQ_H_

#include <cmath>

#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/rotation.h"
#include "ratequant/kv/quantizer_spec.h"

// tcq's row arithmetic, apart from rotation, sums and trellis
// (kernels/FORMAT.md, "tcq").

namespace ratequant::kv {

// The code of the gain that a row is coded at; 0 for a zero row.
RQ_HOST_DEVICE inline int TcqGain(float squared_norm) {
  return CodeOfGain(sqrtf(squared_norm));
}

// What a rotated coordinate is multiplied with to reach the codebook's scale.
RQ_HOST_DEVICE inline float TcqFactor(int gain, int dim) {
  return gain == 0 ? 0.0f : SqrtOfDim(dim) / GainOfCode(gain);
}

// The code of the gain to store beside a row coded at `gain`. `dot` is <x, u>
// with u the decoded unit vector, used for kUnbiased only. 0 for a zero row,
// whose codes are 0 as well.
RQ_HOST_DEVICE inline int TcqStoredGain(RowScale kind, float squared_norm,
                                        int gain, float dot) {
  if (gain == 0 || kind == RowScale::kL2) return gain;
  return dot > 0.0f ? CodeOfGain(squared_norm / dot) : 0;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_TCQ_H_
