#ifndef RATEQUANT_KERNELS_CUDA_ELEMENT_CUH_
#define RATEQUANT_KERNELS_CUDA_ELEMENT_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/quantizers/number.h"
#include "ratequant/kv/tensor.h"

// Elements on the device, converted by kernels/quantizers/number.h.

namespace ratequant::kv::cuda {

__device__ __forceinline__ uint16_t ToHalf(float value) {
  return HalfOfFloat(value);
}
__device__ __forceinline__ float FromHalf(uint16_t half) {
  return FloatOfHalf(half);
}

// An element as it lies in memory.
template <DType kType>
struct Element;

template <>
struct Element<DType::kFloat32> {
  using Storage = float;
  static __device__ float Load(float stored) { return stored; }
  static __device__ float Store(float value) { return value; }
};

template <>
struct Element<DType::kFloat16> {
  using Storage = uint16_t;
  static __device__ float Load(uint16_t stored) { return FromHalf(stored); }
  static __device__ uint16_t Store(float value) { return ToHalf(value); }
};

template <>
struct Element<DType::kBFloat16> {
  using Storage = uint16_t;
  static __device__ float Load(uint16_t stored) {
    return FloatOfBFloat16(stored);
  }
  static __device__ uint16_t Store(float value) {
    return BFloat16OfFloat(value);
  }
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ELEMENT_CUH_
