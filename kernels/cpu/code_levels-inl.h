// A vector of packed codes to floats, in the ways that levels are stored: by
// arithmetic or in tables. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_CODE_LEVELS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_CODE_LEVELS_INL_H_
#undef RATEQUANT_KERNELS_CPU_CODE_LEVELS_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_CODE_LEVELS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/bits-inl.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/vector-inl.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Each is called with the codes from a byte on, and the first of a vector.

// code + offset. The code's bits in the mantissa of 2^23 make 2^23 + code.
template <class D>
class UniformLevels {
 public:
  UniformLevels(D d, int offset)
      : magic_(hn::Set(hn::RebindToUnsigned<D>(), 0x4B000000u)),
        shift_(hn::Set(d, static_cast<float>((1 << 23) - offset))) {}

  HWY_INLINE hn::Vec<D> operator()(D d, const Unpacker<D>& unpacker,
                                   const uint8_t* codes, int first) const {
    const auto words = unpacker.Words(d, codes, first);
    const auto sum = hn::BitCast(d, hn::OrAnd(magic_, words, unpacker.mask()));
    return hn::Sub(sum, shift_);
  }

 private:
  hn::Vec<hn::RebindToUnsigned<D>> magic_;
  hn::Vec<D> shift_;
};

// A table of 16 levels in one register. It repeats where codes have less than 4
// bits, so that the bits above a code don't matter.
template <class D>
class RegisterLevels {
 public:
  RegisterLevels(D d, const float* levels, int width)
      : table_(hn::TableLookupLanes(hn::LoadU(d, levels), Indices(d, width))) {}

  HWY_INLINE hn::Vec<D> operator()(D d, const Unpacker<D>& unpacker,
                                   const uint8_t* codes, int first) const {
    const IntTag<D> di;
    const auto words = hn::BitCast(di, unpacker.Words(d, codes, first));
    // AVX-512 looks at the lowest 4 bits only; IndicesFromVec would, in debug
    // builds, insist on the others being 0.
    using LaneIndices = decltype(hn::IndicesFromVec(d, words));
    return hn::TableLookupLanes(table_, LaneIndices{words.raw});
  }

 private:
  static HWY_INLINE auto Indices(D d, int width) {
    const IntTag<D> di;
    return hn::IndicesFromVec(
        d, hn::And(hn::Iota(di, 0), hn::Set(di, (1 << width) - 1)));
  }

  hn::Vec<D> table_;
};

// Levels of a codebook that fits the registers.
template <int kWidth, class D>
class CodebookLevels {
 public:
  CodebookLevels(D d, const float* levels) : table_(d, levels) {}

  HWY_INLINE hn::Vec<D> operator()(D d, const Unpacker<D>& unpacker,
                                   const uint8_t* codes, int first) const {
    return table_.Lookup(d, unpacker.Codes(d, codes, first));
  }

 private:
  RegisterTable<kCodebookEntries<kWidth>, D> table_;
};

// Levels of one that doesn't.
template <class D>
class GatheredLevels {
 public:
  GatheredLevels(D, const float* levels) : levels_(levels) {}

  HWY_INLINE hn::Vec<D> operator()(D d, const Unpacker<D>& unpacker,
                                   const uint8_t* codes, int first) const {
    return hn::GatherIndex(d, levels_, unpacker.Codes(d, codes, first));
  }

 private:
  const float* levels_;
};

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_CODE_LEVELS_INL_H_
