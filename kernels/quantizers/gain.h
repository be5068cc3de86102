#ifndef RATEQUANT_KERNELS_QUANTIZERS_GAIN_H_
#define RATEQUANT_KERNELS_QUANTIZERS_GAIN_H_

#include <cstdint>

#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/number.h"

// The 8-bit logarithmic gain of a row (kernels/FORMAT.md, "Gains"): 0, or one
// of eight steps in each octave from 2^-11 on. 255 of them reach beyond the
// norm of any row of fp16 numbers.

namespace ratequant::kv {

inline constexpr int kGainSteps = 8;          // per octave
inline constexpr int kGainMinExponent = -11;  // of the least gain
inline constexpr int kMaxGainCode = 255;

// The gain of a code from 0 to 255.
RQ_HOST_DEVICE inline float GainOfCode(int code) {
  if (code == 0) return 0.0f;
  const int step = (code - 1) % kGainSteps;
  // Powers of 2^(1/8), fp32.
  float gain = 1.0f;
  if (step & 1) gain *= 1.0905077457427979f;
  if (step & 2) gain *= 1.1892070770263672f;
  if (step & 4) gain *= 1.4142135381698608f;
  const int exponent = (code - 1) / kGainSteps + kGainMinExponent;
  return FloatOfBits(BitsOfFloat(gain) +
                     (static_cast<uint32_t>(exponent) << 23));
}

// The code whose gain is next to `value`, which isn't negative, in the
// logarithm; 0 below half of the least gain.
RQ_HOST_DEVICE inline int CodeOfGain(float value) {
  if (value < GainOfCode(1) * 0.5f) return 0;
  const uint32_t bits = BitsOfFloat(value);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const float mantissa = FloatOfBits((bits & 0x7FFFFFu) | 0x3F800000u);
  // The middles 2^((k + 1/2) / 8) between two steps, fp32.
  int step = 0;
  step += mantissa >= 1.0442737340927124f ? 1 : 0;
  step += mantissa >= 1.1387885808944702f ? 1 : 0;
  step += mantissa >= 1.2418577671051025f ? 1 : 0;
  step += mantissa >= 1.3542555570602417f ? 1 : 0;
  step += mantissa >= 1.4768261909484863f ? 1 : 0;
  step += mantissa >= 1.610490322113037f ? 1 : 0;
  step += mantissa >= 1.7562521696090698f ? 1 : 0;
  step += mantissa >= 1.9152065515518188f ? 1 : 0;
  const int code = (exponent - kGainMinExponent) * kGainSteps + step + 1;
  if (code < 1) return 1;
  return code < kMaxGainCode ? code : kMaxGainCode;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_GAIN_H_
