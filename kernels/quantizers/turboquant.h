#ifndef RATEQUANT_KERNELS_QUANTIZERS_TURBOQUANT_H_
#define RATEQUANT_KERNELS_QUANTIZERS_TURBOQUANT_H_

#include <cstdint>

#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "ratequant/kv/quantizer_spec.h"

// turboquant's element arithmetic, apart from rotation and row sums
// (kernels/FORMAT.md, "turboquant").

namespace ratequant::kv {

// What a rotated coordinate is multiplied with to reach the codebook's scale:
// sqrt(d) / |x|; 0 for a zero row.
RQ_HOST_DEVICE inline float CodebookFactor(float squared_norm, int dim) {
  const float norm = sqrtf(squared_norm);
  return norm == 0.0f ? 0.0f : SqrtOfDim(dim) / norm;
}

// Number of thresholds below z.
RQ_HOST_DEVICE inline int CodebookCode(float z, const float* thresholds,
                                       int num_thresholds) {
  int code = 0;
  for (int i = 0; i < num_thresholds; ++i) code += thresholds[i] < z ? 1 : 0;
  return code;
}

// The scale to store, already rounded to fp16. `dot` is <x, u> with u the
// decoded unit vector, used for kUnbiased only. 0 for a zero row.
RQ_HOST_DEVICE inline float TurboquantScale(RowScale kind, float squared_norm,
                                            float dot) {
  if (squared_norm == 0.0f) return 0.0f;
  if (kind == RowScale::kL2) return RoundToHalf(sqrtf(squared_norm));
  return dot > 0.0f ? RoundToHalf(squared_norm / dot) : 0.0f;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_TURBOQUANT_H_
