// The element arithmetic of kernels/quantizers/{uniform,turboquant}.h on
// vectors, and lookups in codebooks. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_QUANTIZE_INL_H_
#undef RATEQUANT_KERNELS_CPU_QUANTIZE_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_QUANTIZE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/uniform.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Codes are handled as floats: every code is a small integer.

template <class D>
HWY_INLINE hn::Vec<D> RoundBetween(hn::Vec<D> v, hn::Vec<D> low,
                                   hn::Vec<D> high) {
  return hn::Round(hn::Min(hn::Max(v, low), high));
}

template <class D>
HWY_INLINE hn::Vec<D> AsymmetricCodes(D d, hn::Vec<D> x, hn::Vec<D> zero,
                                      hn::Vec<D> reciprocal,
                                      hn::Vec<D> max_code) {
  return RoundBetween<D>(hn::Mul(hn::Sub(x, zero), reciprocal), hn::Zero(d),
                         max_code);
}

template <class V>
HWY_INLINE V AsymmetricValues(V code, V zero, V scale) {
  return hn::Add(zero, hn::Mul(code, scale));
}

// ReciprocalOrZero.
template <class D>
HWY_INLINE hn::Vec<D> Reciprocals(D d, hn::Vec<D> scale) {
  return hn::IfThenZeroElse(hn::Eq(scale, hn::Zero(d)),
                            hn::Div(hn::Set(d, 1.0f), scale));
}

// The signed levels of rtn, SymmetricStep * code + SymmetricOffset.
template <class D>
struct SymmetricRow {
  SymmetricRow(D d, float abs_max, int width)
      : one_bit(width == 1),
        scale_value(SymmetricScale(abs_max, width)),
        scale(hn::Set(d, scale_value)),
        reciprocal(hn::Set(d, ReciprocalOrZero(scale_value))),
        limit(hn::Set(d, static_cast<float>((1 << (width - 1)) - 1))) {}

  HWY_INLINE hn::Vec<D> Levels(D d, hn::Vec<D> x) const {
    if (one_bit) {
      return hn::IfThenElse(hn::Ge(x, hn::Zero(d)), hn::Set(d, 1.0f),
                            hn::Set(d, -1.0f));
    }
    return RoundBetween<D>(hn::Mul(x, reciprocal), hn::Neg(limit), limit);
  }

  bool one_bit;
  float scale_value;
  hn::Vec<D> scale;
  hn::Vec<D> reciprocal;
  hn::Vec<D> limit;
};

// table[index] for a table of kEntries (a power of two, at least a vector):
// within registers while it fits a few, from memory otherwise.
template <int kEntries, class D>
HWY_INLINE hn::Vec<D> Lookup(D d, const float* HWY_RESTRICT table,
                             hn::Vec<IntTag<D>> index) {
  const IntTag<D> di;
  constexpr int kLanes = NumLanes(D());
  constexpr int kChunks = kEntries / kLanes;
  if constexpr (kChunks > 4) {
    return hn::GatherIndex(d, table, index);
  } else {
    const auto lanes =
        hn::IndicesFromVec(d, hn::And(index, hn::Set(di, kLanes - 1)));
    auto result = hn::TableLookupLanes(hn::LoadU(d, table), lanes);
    for (int chunk = 1; chunk < kChunks; ++chunk) {
      const auto here = hn::Gt(index, hn::Set(di, chunk * kLanes - 1));
      result = hn::IfThenElse(
          hn::RebindMask(d, here),
          hn::TableLookupLanes(hn::LoadU(d, table + chunk * kLanes), lanes),
          result);
    }
    return result;
  }
}

// Entries of a codebook's arrays that may be read.
template <int kWidth>
inline constexpr int kCodebookEntries = (1 << kWidth) < Codebook::kMinEntries
                                            ? Codebook::kMinEntries
                                            : (1 << kWidth);

template <int kWidth, class D>
HWY_INLINE hn::Vec<D> UnitsOfCodes(D d, const Codebook& codebook,
                                   hn::Vec<IntTag<D>> code) {
  return Lookup<kCodebookEntries<kWidth>>(d, codebook.units.data(), code);
}

// One step down the search tree from a node of level kLevel.
template <int kLevel, class D>
HWY_INLINE hn::Vec<IntTag<D>> Descend(D d, const float* HWY_RESTRICT tree,
                                      hn::Vec<IntTag<D>> node, hn::Vec<D> z) {
  const IntTag<D> di;
  hn::Vec<D> threshold;
  if constexpr (kLevel < 4) {
    threshold = Lookup<16>(d, tree, node);
  } else {
    threshold = Lookup<1 << kLevel>(d, tree + (1 << kLevel),
                                    hn::Sub(node, hn::Set(di, 1 << kLevel)));
  }
  // A true mask is -1.
  const auto above =
      hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(threshold, z)));
  return hn::Sub(hn::Add(node, node), above);
}

// CodebookCode: the number of thresholds below z.
template <int kWidth, class D>
HWY_INLINE hn::Vec<IntTag<D>> CodesOfCoordinates(D d, const Codebook& codebook,
                                                 hn::Vec<D> z) {
  const IntTag<D> di;
  const float* const tree = codebook.tree.data();
  auto node = hn::Set(di, 1);
  node = Descend<0>(d, tree, node, z);
  if constexpr (kWidth > 1) node = Descend<1>(d, tree, node, z);
  if constexpr (kWidth > 2) node = Descend<2>(d, tree, node, z);
  if constexpr (kWidth > 3) node = Descend<3>(d, tree, node, z);
  if constexpr (kWidth > 4) node = Descend<4>(d, tree, node, z);
  if constexpr (kWidth > 5) node = Descend<5>(d, tree, node, z);
  if constexpr (kWidth > 6) node = Descend<6>(d, tree, node, z);
  if constexpr (kWidth > 7) node = Descend<7>(d, tree, node, z);
  return hn::Sub(node, hn::Set(di, 1 << kWidth));
}

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_QUANTIZE_INL_H_
