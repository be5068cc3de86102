#ifndef RATEQUANT_KERNELS_QUANTIZERS_UNIFORM_H_
#define RATEQUANT_KERNELS_QUANTIZERS_UNIFORM_H_

#include <cstdint>

#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/number.h"

// Uniform quantizers: asymmetric (kivi, quarot) and symmetric (rtn).
// kernels/FORMAT.md, "Arithmetic". The scale is always the value of the stored
// fp16, on both sides. A scale of 0 makes every code 0.

namespace ratequant::kv {

RQ_HOST_DEVICE inline float ReciprocalOrZero(float scale) {
  return scale == 0.0f ? 0.0f : 1.0f / scale;
}

// Largest code of `width` bits.
RQ_HOST_DEVICE constexpr int MaxCode(int width) { return (1 << width) - 1; }

// --- asymmetric: x^ = zero + code * scale ---

// Adding +0 turns -0 into +0: which zero is the smallest of several depends on
// the order of comparison.
RQ_HOST_DEVICE inline float AsymmetricScale(float min, float max, int width) {
  const float range = (max - min) + 0.0f;
  return RoundToHalf(range / static_cast<float>(MaxCode(width)));
}

RQ_HOST_DEVICE inline float AsymmetricZero(float min) {
  return RoundToHalf(min + 0.0f);
}

// `reciprocal` is ReciprocalOrZero(scale).
RQ_HOST_DEVICE inline int AsymmetricCode(float x, float zero, float reciprocal,
                                         int width) {
  return static_cast<int>(RoundClamped((x - zero) * reciprocal, 0.0f,
                                       static_cast<float>(MaxCode(width))));
}

RQ_HOST_DEVICE inline float AsymmetricValue(int code, float zero, float scale) {
  return zero + static_cast<float>(code) * scale;
}

// --- symmetric: x^ = (step * code + offset) * scale ---

// At 2 bits and more the levels are the integers -L..L with L = 2^(width-1)-1
// times the scale, stored with 2^(width-1) added. One bit has no room for a
// zero: its levels are -1 and +1 times half of the largest magnitude.
RQ_HOST_DEVICE constexpr int SymmetricStep(int width) {
  return width == 1 ? 2 : 1;
}
RQ_HOST_DEVICE constexpr int SymmetricOffset(int width) {
  return width == 1 ? -1 : -(1 << (width - 1));
}

RQ_HOST_DEVICE inline float SymmetricScale(float abs_max, int width) {
  if (width == 1) return RoundToHalf(abs_max * 0.5f);
  return RoundToHalf(abs_max / static_cast<float>((1 << (width - 1)) - 1));
}

RQ_HOST_DEVICE inline int SymmetricCode(float x, float scale, float reciprocal,
                                        int width) {
  if (scale == 0.0f) return 0;
  if (width == 1) return x >= 0.0f ? 1 : 0;
  const float limit = static_cast<float>((1 << (width - 1)) - 1);
  return static_cast<int>(RoundClamped(x * reciprocal, -limit, limit)) +
         (1 << (width - 1));
}

RQ_HOST_DEVICE inline float SymmetricValue(int code, float scale, int width) {
  return static_cast<float>(SymmetricStep(width) * code +
                            SymmetricOffset(width)) *
         scale;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_UNIFORM_H_
