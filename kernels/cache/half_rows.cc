#include "kernels/cache/half_rows.h"

#include <cstddef>
#include <cstring>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/number.h"

namespace ratequant::kv {
namespace {

// The conversions of number.h for values that are known to be finite and within
// fp16's range, without their branches: the loops below then become vector code
// on any target.

constexpr uint32_t kSign = 0x80000000u;
constexpr uint32_t kMaxHalfBits = 0x477fe000u;  // 65504 as fp32

float FloatOfFiniteHalf(uint16_t half) {
  // Places exponent and mantissa as fp32 and corrects the exponent's bias by a
  // multiplication, which also normalises fp16's subnormals.
  const float magnitude =
      FloatOfBits(static_cast<uint32_t>(half & 0x7fff) << 13) * 0x1p112f;
  return FloatOfBits(BitsOfFloat(magnitude) |
                     (static_cast<uint32_t>(half & 0x8000) << 16));
}

uint16_t HalfOfBits(uint32_t bits) {
  const uint32_t magnitude = bits & ~kSign;
  const uint32_t odd = (magnitude >> 13) & 1;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + odd) >> 13;
  // Below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24, fp16's
  // smallest step, in the low bits.
  const uint32_t subnormal =
      BitsOfFloat(FloatOfBits(magnitude) + 0.5f) - BitsOfFloat(0.5f);
  const uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
  return static_cast<uint16_t>(half | ((bits & kSign) >> 16));
}

const uint8_t* RowAt(const ConstRows& rows, int64_t row) {
  return static_cast<const uint8_t*>(rows.data) +
         row * rows.row_stride * static_cast<int64_t>(ElementSize(rows.dtype));
}

uint8_t* RowAt(const MutableRows& rows, int64_t row) {
  return static_cast<uint8_t*>(rows.data) +
         row * rows.row_stride * static_cast<int64_t>(ElementSize(rows.dtype));
}

// Element `i` of a row as its bit pattern T, whatever type the caller gave it.
template <typename T>
T Load(const uint8_t* row, int i) {
  T bits;
  std::memcpy(&bits, row + i * sizeof(T), sizeof(T));
  return bits;
}

template <typename From, typename To, typename F>
void MapRow(const uint8_t* src, int n, F convert, uint8_t* dst) {
  for (int i = 0; i < n; ++i) {
    const To bits = convert(Load<From>(src, i));
    std::memcpy(dst + i * sizeof(To), &bits, sizeof(To));
  }
}

// 1 when any element is outside fp16's finite range. No early exit: the whole
// row is one vector loop, and bad rows are rare.
template <typename T>
bool AnyAbove(const uint8_t* src, int n, T mask, T limit) {
  T found = 0;
  for (int i = 0; i < n; ++i) {
    found |= static_cast<T>((Load<T>(src, i) & mask) > limit);
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

}  // namespace

void RowsToHalf(const ConstRows& rows, int64_t count, int head_dim,
                uint16_t* dst) {
  for (int64_t r = 0; r < count; ++r, dst += head_dim) {
    const uint8_t* src = RowAt(rows, r);
    uint8_t* out = reinterpret_cast<uint8_t*>(dst);
    switch (rows.dtype) {
      case DType::kFloat32:
        MapRow<uint32_t, uint16_t>(src, head_dim, HalfOfBits, out);
        break;
      case DType::kFloat16:
        std::memcpy(out, src, head_dim * sizeof(uint16_t));
        break;
      case DType::kBFloat16:
        MapRow<uint16_t, uint16_t>(
            src, head_dim,
            [](uint16_t b) { return HalfOfBits(uint32_t{b} << 16); }, out);
        break;
    }
  }
}

void HalfToRows(const uint16_t* src, int64_t count, int head_dim,
                const MutableRows& rows) {
  for (int64_t r = 0; r < count; ++r, src += head_dim) {
    const uint8_t* in = reinterpret_cast<const uint8_t*>(src);
    uint8_t* dst = RowAt(rows, r);
    switch (rows.dtype) {
      case DType::kFloat32:
        MapRow<uint16_t, float>(in, head_dim, FloatOfFiniteHalf, dst);
        break;
      case DType::kFloat16:
        std::memcpy(dst, in, head_dim * sizeof(uint16_t));
        break;
      case DType::kBFloat16:
        MapRow<uint16_t, uint16_t>(
            in, head_dim,
            [](uint16_t h) { return BFloat16OfFloat(FloatOfFiniteHalf(h)); },
            dst);
        break;
    }
  }
}

BadValue FindBadValue(const ConstRows& rows, int64_t count, int head_dim) {
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = RowAt(rows, r);
    if (!RowIsBad(row, rows.dtype, head_dim)) continue;
    for (int c = 0; c < head_dim; ++c) {
      const float value = LoadElement(row, rows.dtype, c);
      if (IsOutsideHalf(value)) return {r, c, value};
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
