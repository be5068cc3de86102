#include "kernels/cache/half_rows.h"

#include <cstddef>
#include <cstring>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/number.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cache/half_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#ifndef RATEQUANT_KERNELS_CACHE_HALF_ROWS_FUNCTIONS_
#define RATEQUANT_KERNELS_CACHE_HALF_ROWS_FUNCTIONS_
namespace ratequant::kv {

// Work on one row of n elements, for one instruction set.
struct RowFunctions {
  void (*to_half)(const uint8_t* src, DType dtype, int n, uint8_t* dst);
  void (*from_half)(const uint8_t* src, DType dtype, int n, uint8_t* dst);
  bool (*is_bad)(const uint8_t* row, DType dtype, int n);
  // The same less `mean`, and src + mean.
  void (*centre)(const uint8_t* src, DType dtype, int n, const float* mean,
                 uint8_t* dst);
  bool (*is_bad_centred)(const uint8_t* row, DType dtype, int n,
                         const float* mean);
  void (*add_mean)(const float* src, const float* mean, DType dtype, int n,
                   uint8_t* dst);
};

}  // namespace ratequant::kv
#endif  // RATEQUANT_KERNELS_CACHE_HALF_ROWS_FUNCTIONS_

// Single rows, compiled once for every instruction set. The loops are plain C++
// without branches, which the compiler turns into vector code; conversions are
// those of number.h for values known to be finite and within fp16's range.
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

constexpr uint32_t kSign = 0x80000000u;
constexpr uint32_t kMaxHalfBits = 0x477fe000u;  // 65504 as fp32

HWY_INLINE float FloatOfFiniteHalf(uint16_t half) {
  // Places exponent and mantissa as fp32 and corrects the exponent's bias by a
  // multiplication, which also normalises fp16's subnormals.
  const float magnitude =
      FloatOfBits(static_cast<uint32_t>(half & 0x7fff) << 13) * 0x1p112f;
  return FloatOfBits(BitsOfFloat(magnitude) |
                     (static_cast<uint32_t>(half & 0x8000) << 16));
}

HWY_INLINE uint16_t HalfOfFiniteBits(uint32_t bits) {
  const uint32_t magnitude = bits & ~kSign;
  const uint32_t odd = (magnitude >> 13) & 1;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + odd) >> 13;
  // Below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24, fp16's
  // smallest step, in the low bits.
  const uint32_t subnormal =
      BitsOfFloat(FloatOfBits(magnitude) + 0.5f) - BitsOfFloat(0.5f);
  // A mask and not a choice, which the compiler may leave a branch.
  const uint32_t small = 0u - static_cast<uint32_t>(magnitude < (113u << 23));
  const uint32_t half = (subnormal & small) | (normal & ~small);
  return static_cast<uint16_t>(half | ((bits & kSign) >> 16));
}

// Element `i` of a row as its bit pattern T, whatever type the caller gave it.
template <typename T>
HWY_INLINE T Load(const uint8_t* row, int i) {
  T bits;
  std::memcpy(&bits, row + i * sizeof(T), sizeof(T));
  return bits;
}

template <typename T>
HWY_INLINE void Store(T bits, uint8_t* row, int i) {
  std::memcpy(row + i * sizeof(T), &bits, sizeof(T));
}

void RowToHalf(const uint8_t* HWY_RESTRICT src, DType dtype, int n,
               uint8_t* HWY_RESTRICT dst) {
  switch (dtype) {
    case DType::kFloat32:
      for (int i = 0; i < n; ++i) {
        Store(HalfOfFiniteBits(Load<uint32_t>(src, i)), dst, i);
      }
      break;
    case DType::kFloat16:
      std::memcpy(dst, src, n * sizeof(uint16_t));
      break;
    case DType::kBFloat16:
      for (int i = 0; i < n; ++i) {
        const uint32_t bits = Load<uint16_t>(src, i);
        Store(HalfOfFiniteBits(bits << 16), dst, i);
      }
      break;
  }
}

void HalfToRow(const uint8_t* HWY_RESTRICT src, DType dtype, int n,
               uint8_t* HWY_RESTRICT dst) {
  switch (dtype) {
    case DType::kFloat32:
      for (int i = 0; i < n; ++i) {
        Store(FloatOfFiniteHalf(Load<uint16_t>(src, i)), dst, i);
      }
      break;
    case DType::kFloat16:
      std::memcpy(dst, src, n * sizeof(uint16_t));
      break;
    case DType::kBFloat16:
      for (int i = 0; i < n; ++i) {
        const float value = FloatOfFiniteHalf(Load<uint16_t>(src, i));
        Store(BFloat16OfFloat(value), dst, i);
      }
      break;
  }
}

// True when any element is outside fp16's finite range. No early exit: the
// whole row is one vector loop, and bad rows are rare.
template <typename T>
HWY_INLINE bool AnyAbove(const uint8_t* row, int n, T mask, T limit) {
  T found = 0;
  for (int i = 0; i < n; ++i) {
    found |= static_cast<T>((Load<T>(row, i) & mask) > limit);
  }
  return found != 0;
}

bool RowIsBad(const uint8_t* row, DType dtype, int n) {
  switch (dtype) {
    case DType::kFloat32:
      return AnyAbove<uint32_t>(row, n, ~kSign, kMaxHalfBits);
    case DType::kFloat16:
      return AnyAbove<uint16_t>(row, n, 0x7fff, 0x7bff);
    case DType::kBFloat16:
      return AnyAbove<uint16_t>(row, n, 0x7fff, kMaxHalfBits >> 16);
  }
  return true;
}

// Element `i`, finite, as fp32.
template <DType kType>
HWY_INLINE float LoadFloat(const uint8_t* row, int i) {
  if constexpr (kType == DType::kFloat32) return Load<float>(row, i);
  if constexpr (kType == DType::kFloat16) {
    return FloatOfFiniteHalf(Load<uint16_t>(row, i));
  }
  return FloatOfBits(static_cast<uint32_t>(Load<uint16_t>(row, i)) << 16);
}

template <DType kType>
HWY_INLINE void CentreAs(const uint8_t* HWY_RESTRICT src, int n,
                         const float* HWY_RESTRICT mean,
                         uint8_t* HWY_RESTRICT dst) {
  for (int i = 0; i < n; ++i) {
    const float left = LoadFloat<kType>(src, i) - mean[i];
    Store(HalfOfFiniteBits(BitsOfFloat(left)), dst, i);
  }
}

void Centre(const uint8_t* src, DType dtype, int n, const float* mean,
            uint8_t* dst) {
  switch (dtype) {
    case DType::kFloat32:
      return CentreAs<DType::kFloat32>(src, n, mean, dst);
    case DType::kFloat16:
      return CentreAs<DType::kFloat16>(src, n, mean, dst);
    case DType::kBFloat16:
      return CentreAs<DType::kBFloat16>(src, n, mean, dst);
  }
}

template <DType kType>
HWY_INLINE bool AnyAboveCentred(const uint8_t* row, int n, const float* mean) {
  uint32_t found = 0;
  for (int i = 0; i < n; ++i) {
    const float left = LoadFloat<kType>(row, i) - mean[i];
    found |= static_cast<uint32_t>((BitsOfFloat(left) & ~kSign) > kMaxHalfBits);
  }
  return found != 0;
}

bool RowIsBadCentred(const uint8_t* row, DType dtype, int n,
                     const float* mean) {
  if (RowIsBad(row, dtype, n)) return true;
  switch (dtype) {
    case DType::kFloat32:
      return AnyAboveCentred<DType::kFloat32>(row, n, mean);
    case DType::kFloat16:
      return AnyAboveCentred<DType::kFloat16>(row, n, mean);
    case DType::kBFloat16:
      return AnyAboveCentred<DType::kBFloat16>(row, n, mean);
  }
  return true;
}

void AddMeanToRow(const float* HWY_RESTRICT src, const float* HWY_RESTRICT mean,
                  DType dtype, int n, uint8_t* HWY_RESTRICT dst) {
  switch (dtype) {
    case DType::kFloat32:
      for (int i = 0; i < n; ++i) Store(src[i] + mean[i], dst, i);
      break;
    case DType::kFloat16:
      for (int i = 0; i < n; ++i) {
        const uint32_t bits = BitsOfFloat(src[i] + mean[i]);
        const uint32_t magnitude = bits & ~kSign;
        const uint32_t kept =
            magnitude < kMaxHalfBits ? magnitude : kMaxHalfBits;
        Store(HalfOfFiniteBits((bits & kSign) | kept), dst, i);
      }
      break;
    case DType::kBFloat16:
      for (int i = 0; i < n; ++i) {
        Store(BFloat16OfFloat(src[i] + mean[i]), dst, i);
      }
      break;
  }
}

RowFunctions RowFunctionsForTarget() {
  return {&RowToHalf, &HalfToRow,       &RowIsBad,
          &Centre,    &RowIsBadCentred, &AddMeanToRow};
}

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {
namespace {

HWY_EXPORT(RowFunctionsForTarget);

// Those of the best instruction set this machine has.
const RowFunctions& Functions() {
  static const RowFunctions functions =
      HWY_DYNAMIC_DISPATCH(RowFunctionsForTarget)();
  return functions;
}

const uint8_t* RowAt(const ConstRows& rows, int64_t row) {
  return static_cast<const uint8_t*>(rows.data) +
         row * rows.row_stride * static_cast<int64_t>(ElementSize(rows.dtype));
}

uint8_t* RowAt(const MutableRows& rows, int64_t row) {
  return static_cast<uint8_t*>(rows.data) +
         row * rows.row_stride * static_cast<int64_t>(ElementSize(rows.dtype));
}

}  // namespace

void RowsToHalf(const ConstRows& rows, int64_t count, int head_dim,
                uint16_t* dst, const float* mean) {
  const RowFunctions& functions = Functions();
  for (int64_t r = 0; r < count; ++r, dst += head_dim) {
    const uint8_t* const row = RowAt(rows, r);
    uint8_t* const out = reinterpret_cast<uint8_t*>(dst);
    if (mean == nullptr) {
      functions.to_half(row, rows.dtype, head_dim, out);
    } else {
      functions.centre(row, rows.dtype, head_dim, mean, out);
    }
  }
}

void HalfToRows(const uint16_t* src, int64_t count, int head_dim,
                const MutableRows& rows) {
  const auto convert = Functions().from_half;
  for (int64_t r = 0; r < count; ++r, src += head_dim) {
    convert(reinterpret_cast<const uint8_t*>(src), rows.dtype, head_dim,
            RowAt(rows, r));
  }
}

void AddMean(const float* src, const float* mean, int64_t count, int head_dim,
             const MutableRows& rows) {
  const auto add = Functions().add_mean;
  for (int64_t r = 0; r < count; ++r, src += head_dim) {
    add(src, mean, rows.dtype, head_dim, RowAt(rows, r));
  }
}

BadValue FindBadValue(const ConstRows& rows, int64_t count, int head_dim,
                      const float* mean) {
  const RowFunctions& functions = Functions();
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = RowAt(rows, r);
    const bool bad =
        mean == nullptr
            ? functions.is_bad(row, rows.dtype, head_dim)
            : functions.is_bad_centred(row, rows.dtype, head_dim, mean);
    if (!bad) continue;
    for (int c = 0; c < head_dim; ++c) {
      const float value = LoadElement(row, rows.dtype, c);
      if (IsOutsideHalf(value) ||
          (mean != nullptr && IsOutsideHalf(value - mean[c]))) {
        return {r, c, value};
      }
    }
  }
  return {};
}

ConstRows RowsFrom(const ConstRows& rows, int64_t row) {
  return {RowAt(rows, row), rows.dtype, rows.row_stride};
}

MutableRows RowsFrom(const MutableRows& rows, int64_t row) {
  return {RowAt(rows, row), rows.dtype, rows.row_stride};
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
