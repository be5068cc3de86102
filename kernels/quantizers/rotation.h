#ifndef RATEQUANT_KERNELS_QUANTIZERS_ROTATION_H_
#define RATEQUANT_KERNELS_QUANTIZERS_ROTATION_H_

#include <cmath>
#include <cstdint>

#include "kernels/quantizers/host_device.h"

// The randomised Hadamard rotation y = H (s * x) / sqrt(d) and the canonical
// sum (kernels/FORMAT.md, "Rotation", "Sums"). `dim` is a power of two
// everywhere here.

namespace ratequant::kv {

// splitmix64 output number `index` of the stream seeded with `seed`.
RQ_HOST_DEVICE constexpr uint64_t SplitMix64(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// +1 or -1: the sign of `channel` under `seed`.
RQ_HOST_DEVICE constexpr float RotationSign(uint64_t seed, int channel) {
  const uint64_t word = SplitMix64(seed, static_cast<uint64_t>(channel) / 64);
  return (word >> (channel % 64)) & 1 ? -1.0f : 1.0f;
}

RQ_HOST_DEVICE inline float SqrtOfDim(int dim) {
  return sqrtf(static_cast<float>(dim));
}

RQ_HOST_DEVICE inline float InverseSqrtOfDim(int dim) {
  return 1.0f / SqrtOfDim(dim);
}

// Fast Walsh-Hadamard transform in place, Sylvester order, not normalised.
RQ_HOST_DEVICE inline void HadamardTransform(float* values, int dim) {
  for (int half = 1; half < dim; half *= 2) {
    for (int block = 0; block < dim; block += 2 * half) {
      for (int i = block; i < block + half; ++i) {
        const float a = values[i];
        const float b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
}

// x -> H (signs * x) / sqrt(dim), in place.
RQ_HOST_DEVICE inline void Rotate(const float* signs, float* values, int dim) {
  for (int i = 0; i < dim; ++i) values[i] *= signs[i];
  HadamardTransform(values, dim);
  const float norm = InverseSqrtOfDim(dim);
  for (int i = 0; i < dim; ++i) values[i] *= norm;
}

// The inverse of Rotate, in place.
RQ_HOST_DEVICE inline void RotateBack(const float* signs, float* values,
                                      int dim) {
  HadamardTransform(values, dim);
  const float norm = InverseSqrtOfDim(dim);
  for (int i = 0; i < dim; ++i) values[i] = (values[i] * norm) * signs[i];
}

// Sum in canonical order: the upper half is added to the lower until one
// element is left. Destroys `values`.
RQ_HOST_DEVICE inline float FoldSum(float* values, int dim) {
  for (int half = dim / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) values[i] = values[i] + values[i + half];
  }
  return values[0];
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_ROTATION_H_
