#ifndef RATEQUANT_KERNELS_QUANTIZERS_ELEMENT_H_
#define RATEQUANT_KERNELS_QUANTIZERS_ELEMENT_H_

#include <cstdint>

#include "kernels/quantizers/number.h"
#include "ratequant/kv/tensor.h"

// Single elements of tensors whose type is known at run time.

namespace ratequant::kv {

inline float LoadElement(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16:
      return FloatOfHalf(static_cast<const uint16_t*>(data)[index]);
    case DType::kBFloat16:
      return FloatOfBFloat16(static_cast<const uint16_t*>(data)[index]);
    case DType::kFloat32:
      break;
  }
  return static_cast<const float*>(data)[index];
}

// fp16 is saturated: a decoded value is never infinite.
inline void StoreElement(float value, void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16:
      static_cast<uint16_t*>(data)[index] = HalfOfFloat(value);
      return;
    case DType::kBFloat16:
      static_cast<uint16_t*>(data)[index] = BFloat16OfFloat(value);
      return;
    case DType::kFloat32:
      break;
  }
  static_cast<float*>(data)[index] = value;
}

// True for NaN and the infinities as well.
inline bool IsOutsideHalf(float value) { return !(fabsf(value) <= kMaxHalf); }

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_ELEMENT_H_
