#ifndef RATEQUANT_KERNELS_REFERENCE_TURBOQUANT_ROW_H_
#define RATEQUANT_KERNELS_REFERENCE_TURBOQUANT_ROW_H_

#include <cstdint>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "ratequant/kv/quantizer.h"

namespace ratequant::kv {

struct TurboquantRow {
  float scale = 0.0f;  // an fp16 value
  std::vector<uint8_t> codes;
};

// Quantizes one row that is already rotated; `squared_norm` is the canonical
// sum of its squares before the rotation.
TurboquantRow EncodeTurboquant(const Codebook& codebook, RowScale row_scale,
                               float squared_norm,
                               const std::vector<float>& rotated);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_TURBOQUANT_ROW_H_
