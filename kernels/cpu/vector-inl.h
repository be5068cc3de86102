// Vectors of floats: rows of tensors, canonical sums, Hadamard transforms.
// Included once per target (Highway's foreach_target).

#if defined(RATEQUANT_KERNELS_CPU_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_VECTOR_INL_H_
#undef RATEQUANT_KERNELS_CPU_VECTOR_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_VECTOR_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/quantizers/limits.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "ratequant/kv/tensor.h"

// Nothing is written for single floats: the reference backend is that.
#undef RQ_HAS_VECTORS
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define RQ_HAS_VECTORS 0
#else
#define RQ_HAS_VECTORS 1
#endif

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows are whole vectors: head_dim is a multiple of 8, and WideTag is used for
// multiples of 16 only.
using WideTag = hn::CappedTag<float, 16>;
using NarrowTag = hn::CappedTag<float, 8>;

inline constexpr int kMaxDim = kMaxHeadDim;

template <class D>
using IntTag = hn::RebindToSigned<D>;

template <class D>
HWY_INLINE constexpr int NumLanes(D) {
  return static_cast<int>(hn::MaxLanes(D()));
}

// --- 16-bit formats ---

// Highway's fp16 conversions are exact only where the CPU has them.
#undef RQ_NATIVE_HALF
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
#define RQ_NATIVE_HALF 1
#else
#define RQ_NATIVE_HALF 0
#endif

template <class D>
HWY_INLINE hn::Vec<D> LoadHalves(D d, const void* halves) {
#if RQ_NATIVE_HALF
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(
      d, hn::LoadU(dh, static_cast<const hwy::float16_t*>(halves)));
#else
  HWY_ALIGN float values[16];
  for (int i = 0; i < NumLanes(d); ++i) {
    uint16_t half;
    memcpy(&half, static_cast<const char*>(halves) + 2 * i, sizeof(half));
    values[i] = FloatOfHalf(half);
  }
  return hn::Load(d, values);
#endif
}

// Saturated, as HalfOfFloat.
template <class D>
HWY_INLINE void StoreHalves(D d, hn::Vec<D> v, void* halves) {
#if RQ_NATIVE_HALF
  const hn::Rebind<hwy::float16_t, D> dh;
  v = hn::Min(hn::Max(v, hn::Set(d, -kMaxHalf)), hn::Set(d, kMaxHalf));
  hn::StoreU(hn::DemoteTo(dh, v), dh, static_cast<hwy::float16_t*>(halves));
#else
  HWY_ALIGN float values[16];
  hn::Store(v, d, values);
  for (int i = 0; i < NumLanes(d); ++i) {
    const uint16_t half = HalfOfFloat(values[i]);
    memcpy(static_cast<char*>(halves) + 2 * i, &half, sizeof(half));
  }
#endif
}

// RoundToHalf.
template <class D>
HWY_INLINE hn::Vec<D> RoundToHalves(D d, hn::Vec<D> v) {
  HWY_ALIGN uint16_t halves[16];
  StoreHalves(d, v, halves);
  return LoadHalves(d, halves);
}

template <class D>
HWY_INLINE hn::Vec<D> LoadBFloat16s(D d, const uint16_t* data) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, data))));
}

template <class D>
HWY_INLINE void StoreBFloat16s(D d, hn::Vec<D> v, uint16_t* data) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded =
      hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd));
  // The values are below 2^16, which the signed demotion keeps.
  const hn::RebindToSigned<D> di;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, rounded)), d16, data);
}

// --- rows ---

// `count` elements as floats: the data itself, or converted into `buffer`.
template <class D>
HWY_INLINE const float* LoadRow(D d, const void* data, DType dtype, int count,
                                float* HWY_RESTRICT buffer) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(data);
  const uint16_t* const source = static_cast<const uint16_t*>(data);
  for (int i = 0; i < count; i += NumLanes(d)) {
    const auto v = dtype == DType::kFloat16 ? LoadHalves(d, source + i)
                                            : LoadBFloat16s(d, source + i);
    hn::StoreU(v, d, buffer + i);
  }
  return buffer;
}

// Writes floats as `dtype`, which isn't fp32.
template <class D>
HWY_INLINE void StoreRow(D d, const float* HWY_RESTRICT values, int count,
                         void* data, DType dtype) {
  uint16_t* const target = static_cast<uint16_t*>(data);
  for (int i = 0; i < count; i += NumLanes(d)) {
    const auto v = hn::LoadU(d, values + i);
    if (dtype == DType::kFloat16) {
      StoreHalves(d, v, target + i);
    } else {
      StoreBFloat16s(d, v, target + i);
    }
  }
}

// Loads a row that may be fp32 into `buffer`, rounded to fp16. False when a
// magnitude was above `limit` before, or a NaN.
template <class D>
HWY_INLINE bool LoadRounded(D d, const void* data, DType dtype, int count,
                            float limit, float* HWY_RESTRICT buffer) {
  const float* const x = LoadRow(d, data, dtype, count, buffer);
  const auto bound = hn::Set(d, limit);
  auto good = hn::Eq(bound, bound);
  for (int i = 0; i < count; i += NumLanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    good = hn::And(good, hn::Le(hn::Abs(v), bound));
    hn::StoreU(RoundToHalves(d, v), d, buffer + i);
  }
  return hn::AllTrue(d, good);
}

// True when all magnitudes are at most `limit`; false for a NaN.
template <class D>
HWY_INLINE bool AllWithin(D d, const float* values, int count, float limit) {
  const auto bound = hn::Set(d, limit);
  auto good = hn::Eq(bound, bound);
  for (int i = 0; i < count; i += NumLanes(d)) {
    good = hn::And(good, hn::Le(hn::Abs(hn::LoadU(d, values + i)), bound));
  }
  return hn::AllTrue(d, good);
}

// --- exchanges between lanes ---

// Lane i gets lane i ^ kDistance; for vectors of more than kDistance lanes.
template <int kDistance, class D>
HWY_INLINE hn::Vec<D> SwapLanes(D d, hn::Vec<D> v) {
  if constexpr (kDistance == 1) return hn::Shuffle2301(v);
  if constexpr (kDistance == 2) return hn::Shuffle1032(v);
  if constexpr (kDistance == 4) return hn::SwapAdjacentBlocks(v);
  if constexpr (kDistance == 8) return hn::ConcatLowerUpper(d, v, v);
}

// The canonical sum of `count` floats, a power of two and at least a vector.
// Destroys `values`.
template <class D>
HWY_INLINE float FoldSum(D d, float* HWY_RESTRICT values, int count) {
  constexpr int kLanes = NumLanes(D());
  for (int half = count / 2; half >= kLanes; half /= 2) {
    for (int i = 0; i < half; i += kLanes) {
      hn::Store(
          hn::Add(hn::Load(d, values + i), hn::Load(d, values + i + half)), d,
          values + i);
    }
  }
  auto v = hn::Load(d, values);
  if constexpr (kLanes > 8) v = hn::Add(v, SwapLanes<8>(d, v));
  if constexpr (kLanes > 4) v = hn::Add(v, SwapLanes<4>(d, v));
  if constexpr (kLanes > 2) v = hn::Add(v, SwapLanes<2>(d, v));
  return hn::GetLane(hn::Add(v, SwapLanes<1>(d, v)));
}

// --- Hadamard transform ---

// One stage within vectors: lanes i and i ^ kDistance become their sum and
// difference. The product with +-1 is exact, so fusing it changes nothing.
template <int kDistance, class D>
HWY_INLINE hn::Vec<D> ButterflyLanes(D d, hn::Vec<D> v) {
  const IntTag<D> di;
  const auto upper =
      hn::Ne(hn::And(hn::Iota(di, 0), hn::Set(di, kDistance)), hn::Zero(di));
  const auto sign = hn::IfThenElse(hn::RebindMask(d, upper), hn::Set(d, -1.0f),
                                   hn::Set(d, 1.0f));
  return hn::MulAdd(v, sign, SwapLanes<kDistance>(d, v));
}

template <class D>
HWY_INLINE hn::Vec<D> HadamardLanes(D d, hn::Vec<D> v) {
  constexpr int kLanes = NumLanes(D());
  v = ButterflyLanes<1>(d, v);
  if constexpr (kLanes > 2) v = ButterflyLanes<2>(d, v);
  if constexpr (kLanes > 4) v = ButterflyLanes<4>(d, v);
  if constexpr (kLanes > 8) v = ButterflyLanes<8>(d, v);
  return v;
}

// HadamardTransform of `dim` floats in an aligned buffer, a power of two and at
// least a vector.
template <class D>
HWY_INLINE void Hadamard(D d, float* HWY_RESTRICT values, int dim) {
  constexpr int kLanes = NumLanes(D());
  for (int i = 0; i < dim; i += kLanes) {
    hn::Store(HadamardLanes(d, hn::Load(d, values + i)), d, values + i);
  }
  int half = kLanes;
  // Two stages at a time while there are two: half of the memory traffic.
  for (; 4 * half <= dim; half *= 4) {
    for (int block = 0; block < dim; block += 4 * half) {
      for (int i = block; i < block + half; i += kLanes) {
        const auto a = hn::Load(d, values + i);
        const auto b = hn::Load(d, values + i + half);
        const auto c = hn::Load(d, values + i + 2 * half);
        const auto e = hn::Load(d, values + i + 3 * half);
        const auto ab = hn::Add(a, b), a_b = hn::Sub(a, b);
        const auto ce = hn::Add(c, e), c_e = hn::Sub(c, e);
        hn::Store(hn::Add(ab, ce), d, values + i);
        hn::Store(hn::Add(a_b, c_e), d, values + i + half);
        hn::Store(hn::Sub(ab, ce), d, values + i + 2 * half);
        hn::Store(hn::Sub(a_b, c_e), d, values + i + 3 * half);
      }
    }
  }
  if (half < dim) {
    for (int i = 0; i < half; i += kLanes) {
      const auto a = hn::Load(d, values + i);
      const auto b = hn::Load(d, values + i + half);
      hn::Store(hn::Add(a, b), d, values + i);
      hn::Store(hn::Sub(a, b), d, values + i + half);
    }
  }
}

// Rotate: `x` into the aligned buffer `rotated`.
template <class D>
HWY_INLINE void RotateRow(D d, const float* HWY_RESTRICT x,
                          const float* HWY_RESTRICT signs, int dim,
                          float* HWY_RESTRICT rotated) {
  for (int i = 0; i < dim; i += NumLanes(d)) {
    hn::Store(hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, signs + i)), d,
              rotated + i);
  }
  Hadamard(d, rotated, dim);
  const auto norm = hn::Set(d, InverseSqrtOfDim(dim));
  for (int i = 0; i < dim; i += NumLanes(d)) {
    hn::Store(hn::Mul(hn::Load(d, rotated + i), norm), d, rotated + i);
  }
}

// RotateBack: the aligned buffer `rotated` (destroyed) into `x`. Multiplying by
// the sign last or with the norm is the same: it is exact.
template <class D>
HWY_INLINE void RotateRowBack(D d, float* HWY_RESTRICT rotated,
                              const float* HWY_RESTRICT signs, int dim,
                              float* HWY_RESTRICT x) {
  Hadamard(d, rotated, dim);
  const auto norm = hn::Set(d, InverseSqrtOfDim(dim));
  for (int i = 0; i < dim; i += NumLanes(d)) {
    const auto factor = hn::Mul(norm, hn::LoadU(d, signs + i));
    hn::StoreU(hn::Mul(hn::Load(d, rotated + i), factor), d, x + i);
  }
}

// --- ranges ---

struct Range {
  float min;
  float max;
};

template <class D>
HWY_INLINE Range RangeOf(D d, const float* HWY_RESTRICT x, int count) {
  auto min = hn::LoadU(d, x);
  auto max = min;
  for (int i = NumLanes(d); i < count; i += NumLanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    min = hn::Min(min, v);
    max = hn::Max(max, v);
  }
  return {hn::GetLane(hn::MinOfLanes(d, min)),
          hn::GetLane(hn::MaxOfLanes(d, max))};
}

template <class D>
HWY_INLINE float AbsMaxOf(D d, const float* HWY_RESTRICT x, int count) {
  auto max = hn::Zero(d);
  for (int i = 0; i < count; i += NumLanes(d)) {
    max = hn::Max(max, hn::Abs(hn::LoadU(d, x + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_VECTOR_INL_H_
