#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_MATH_BUILTINS_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_MATH_BUILTINS_H_

#include <math.h>

#include <bit>
#include <cstdint>

// CUDA's arithmetic and memory intrinsics. Those of fp32 round once and to
// nearest, as on a GPU; code that includes this is compiled with
// -ffp-contract=off. What a GPU only approximates (rsqrtf, __expf) isn't here
// unless its result is rounded anyway.

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline int __float2int_rn(float value) {
  return static_cast<int>(nearbyintf(value));
}

inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int value) { return std::bit_cast<float>(value); }
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned value) {
  return std::bit_cast<float>(value);
}

inline int __popc(unsigned value) { return std::popcount(value); }
inline int __popcll(unsigned long long value) { return std::popcount(value); }
inline int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
inline int __ffs(int value) { return __builtin_ffs(value); }

// The low word of (high:low) >> (shift mod 32).
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<unsigned>(both >> (shift & 31));
}

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_MATH_BUILTINS_H_
