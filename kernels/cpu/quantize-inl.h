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

// Whether tables of two vectors can be looked up at once.
#undef RQ_TWO_TABLES
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
#define RQ_TWO_TABLES 1
#else
#define RQ_TWO_TABLES 0
#endif

// Entries of tables that are looked up within registers; larger ones are
// gathered from memory.
template <class D>
inline constexpr int kMaxRegisterEntries = RQ_TWO_TABLES&& NumLanes(D()) == 16
                                               ? 256
                                               : 4 * NumLanes(D());

// A table of kEntries, a power of two and at least a vector, in registers.
template <int kEntries, class D>
class RegisterTable {
 public:
  RegisterTable(D d, const float* HWY_RESTRICT table) {
    for (int i = 0; i < kChunks; ++i) {
      chunks_[i] = hn::LoadU(d, table + i * kLanes);
    }
  }

  // Entries [index]; its bits above the table's don't matter.
  HWY_INLINE hn::Vec<D> Lookup(D d, hn::Vec<IntTag<D>> index) const {
    return LookupIn<0, kChunks>(d, index);
  }

 private:
  static constexpr int kLanes = NumLanes(D());
  static constexpr int kChunks = kEntries / kLanes;

  // In kCount chunks from kFirst on.
  template <int kFirst, int kCount>
  HWY_INLINE hn::Vec<D> LookupIn(D d, hn::Vec<IntTag<D>> index) const {
    const IntTag<D> di;
    if constexpr (kCount == 1) {
      const auto lane = hn::And(index, hn::Set(di, kLanes - 1));
      return hn::TableLookupLanes(chunks_[kFirst], hn::IndicesFromVec(d, lane));
#if RQ_TWO_TABLES
    } else if constexpr (kCount == 2 && kLanes == 16) {
      return hn::Vec<D>{_mm512_permutex2var_ps(chunks_[kFirst].raw, index.raw,
                                               chunks_[kFirst + 1].raw)};
#endif
    } else {
      // By the index's highest bit.
      constexpr int kHalf = kCount / 2;
      const auto upper = hn::TestBit(index, hn::Set(di, kHalf * kLanes));
      return hn::IfThenElse(hn::RebindMask(d, upper),
                            LookupIn<kFirst + kHalf, kHalf>(d, index),
                            LookupIn<kFirst, kHalf>(d, index));
    }
  }

  hn::Vec<D> chunks_[kChunks];
};

// table[index] for a table of kEntries.
template <int kEntries, class D>
HWY_INLINE hn::Vec<D> Lookup(D d, const float* HWY_RESTRICT table,
                             hn::Vec<IntTag<D>> index) {
  if constexpr (kEntries > kMaxRegisterEntries<D>) {
    return hn::GatherIndex(d, table, index);
  } else {
    return RegisterTable<kEntries, D>(d, table).Lookup(d, index);
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
