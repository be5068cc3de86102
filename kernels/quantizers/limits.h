#ifndef RATEQUANT_KERNELS_QUANTIZERS_LIMITS_H_
#define RATEQUANT_KERNELS_QUANTIZERS_LIMITS_H_

#include <bit>

#include "ratequant/kv/quantizer_spec.h"

// Which values the format has, once for every backend. What is said about a
// value that isn't among them is the caller's.

namespace ratequant::kv {

inline constexpr int kMinHeadDim = 8;
inline constexpr int kMaxHeadDim = 512;

constexpr bool IsPowerOfTwo(int value) {
  return value > 0 && std::has_single_bit(static_cast<unsigned>(value));
}

// Multiples of 8 from kMinHeadDim to kMaxHeadDim.
constexpr bool IsHeadDim(int value) {
  return value >= kMinHeadDim && value <= kMaxHeadDim && value % 8 == 0;
}

// 16, 32, 64, 128.
constexpr bool IsPageTokens(int value) {
  return value >= 16 && value <= 128 && IsPowerOfTwo(value);
}

// 8, 16, 32, 64, 128.
constexpr bool IsGroupSize(int value) {
  return value >= 8 && value <= 128 && IsPowerOfTwo(value);
}

constexpr bool IsKnownKind(QuantizerKind kind) {
  switch (kind) {
    case QuantizerKind::kRtn:
    case QuantizerKind::kKivi:
    case QuantizerKind::kQuarot:
    case QuantizerKind::kTurboquant:
    case QuantizerKind::kTcq:
      return true;
  }
  return false;
}

constexpr bool IsKnownScale(RowScale scale) {
  return scale == RowScale::kL2 || scale == RowScale::kUnbiased;
}

// True for the kinds that need a head_dim that is a power of two.
constexpr bool IsRotated(QuantizerKind kind) {
  return kind == QuantizerKind::kQuarot || kind == QuantizerKind::kTurboquant ||
         kind == QuantizerKind::kTcq;
}

// True for the kinds that have a RowScale.
constexpr bool HasRowScale(QuantizerKind kind) {
  return kind == QuantizerKind::kTurboquant || kind == QuantizerKind::kTcq;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_LIMITS_H_
