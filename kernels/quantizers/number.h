#ifndef RATEQUANT_KERNELS_QUANTIZERS_NUMBER_H_
#define RATEQUANT_KERNELS_QUANTIZERS_NUMBER_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/quantizers/host_device.h"

// Conversions between fp32 and the 16-bit formats, by their bits
// (kernels/FORMAT.md, "Numbers"). Round to nearest, ties to even. On a GPU the
// hardware's instructions, which give the same bits: in software a conversion
// costs as much as the rest of a quantizer.

namespace ratequant::kv {

// fp16's largest magnitude; larger inputs are refused.
inline constexpr float kMaxHalf = 65504.0f;

RQ_HOST_DEVICE inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

RQ_HOST_DEVICE inline float FloatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// fp16 bits of a finite `value`; magnitudes above kMaxHalf become kMaxHalf, so
// that nothing stored is ever infinite.
RQ_HOST_DEVICE inline uint16_t HalfOfFloat(float value) {
#ifdef __CUDA_ARCH__
  uint16_t half;
  value = fminf(fmaxf(value, -kMaxHalf), kMaxHalf);
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t bits = BitsOfFloat(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >= 0x477FE000u) return static_cast<uint16_t>(sign | 0x7BFFu);
  if (magnitude < 0x38800000u) {
    // Below 2^-14. The unit in the last place of a float in [0.5, 1) is fp16's
    // smallest step, so the addition rounds.
    const uint32_t sum = BitsOfFloat(FloatOfBits(magnitude) + 0.5f);
    return static_cast<uint16_t>(sign | (sum - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
#endif
}

RQ_HOST_DEVICE inline float FloatOfHalf(uint16_t half) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude < 0x400u) {  // subnormal: a multiple of 2^-24
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    return FloatOfBits(sign | BitsOfFloat(value));
  }
  if (magnitude >= 0x7C00u) {  // infinity, NaN
    return FloatOfBits(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  }
  return FloatOfBits(sign | ((magnitude << 13) + 0x38000000u));
#endif
}

// `value` after a trip through fp16.
RQ_HOST_DEVICE inline float RoundToHalf(float value) {
  return FloatOfHalf(HalfOfFloat(value));
}

RQ_HOST_DEVICE inline float FloatOfBFloat16(uint16_t bits) {
  return FloatOfBits(static_cast<uint32_t>(bits) << 16);
}

// bf16 bits of a finite `value`.
RQ_HOST_DEVICE inline uint16_t BFloat16OfFloat(float value) {
  const uint32_t bits = BitsOfFloat(value);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// Nearest integer, ties to even, inside [low, high]. The bounds are integers,
// so clamping first changes nothing and keeps huge values out of the rounding.
RQ_HOST_DEVICE inline float RoundClamped(float value, float low, float high) {
  value = value < low ? low : value;
  value = value > high ? high : value;
  return rintf(value);
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_NUMBER_H_
