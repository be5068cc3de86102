// Rows that a trellis has coded (kernels/quantizers/trellis.h) to levels,
// without a trellis. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_TRELLIS_LEVELS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_TRELLIS_LEVELS_INL_H_
#undef RATEQUANT_KERNELS_CPU_TRELLIS_LEVELS_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_TRELLIS_LEVELS_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/bits-inl.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/quantizers/codebook.h"

#undef RQ_BIT_FIELDS
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
#define RQ_BIT_FIELDS 1  // BMI2
#else
#define RQ_BIT_FIELDS 0
#endif

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// `count` bits, one in every `distance`.
constexpr uint64_t EveryBit(int distance, int count) {
  uint64_t bits = 0;
  for (int i = 0; i < count; ++i) bits |= uint64_t{1} << (i * distance);
  return bits;
}

// kBytes bytes as the lowest of a word. Copied to a word at once they would go
// through memory, and the word would have to wait for them.
template <int kBytes>
HWY_INLINE uint64_t LoadBytes(const uint8_t* bytes) {
  constexpr int kLow = kBytes >= 8 ? 8 : kBytes >= 4 ? 4 : kBytes >= 2 ? 2 : 1;
  std::conditional_t<
      kLow == 8, uint64_t,
      std::conditional_t<kLow == 4, uint32_t,
                         std::conditional_t<kLow == 2, uint16_t, uint8_t>>>
      low;
  memcpy(&low, bytes, sizeof(low));
  if constexpr (kBytes == kLow) {
    return low;
  } else {
    return low | LoadBytes<kBytes - kLow>(bytes + kLow) << (8 * kLow);
  }
}

// The coded bits of kCodes codes, side by side.
template <int kWidth, int kCodes>
HWY_INLINE uint64_t CodedBits(const uint8_t* codes) {
  const uint64_t packed = LoadBytes<kCodes / 8 * kWidth>(codes);
#if RQ_BIT_FIELDS
  return _pext_u64(packed, EveryBit(kWidth, kCodes));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kCodes; ++i) bits |= (packed >> (i * kWidth) & 1) << i;
  return bits;
#endif
}

// Both bits of the subsets of a row's elements, a bit for each; where a row has
// less than 64 elements, they repeat.
struct SubsetBits {
  uint64_t first[kMaxDim / 64];
  uint64_t second[kMaxDim / 64];
};

template <int kWidth>
HWY_INLINE void FindSubsets(const uint8_t* HWY_RESTRICT codes, int dim,
                            SubsetBits& subsets) {
  uint64_t coded[kMaxDim / 64];
  if (dim < 64) {
    uint64_t bits = 0;
    for (int i = 0; i < dim; i += 8) {
      bits |= CodedBits<kWidth, 8>(codes + i / 8 * kWidth) << i;
    }
    // A row is a circle; repeated it can be turned as a whole word.
    for (int i = dim; i < 64; i *= 2) bits |= bits << i;
    coded[0] = bits;
  } else {
    for (int i = 0; i < dim; i += 64) {
      uint64_t bits = 0;
      for (int j = 0; j < 64; j += 16) {
        bits |= CodedBits<kWidth, 16>(codes + (i + j) / 8 * kWidth) << j;
      }
      coded[i / 64] = bits;
    }
  }
  const int words = HWY_MAX(dim / 64, 1);
  uint64_t before = coded[words - 1];
  for (int i = 0; i < words; ++i) {
    const uint64_t now = coded[i];
    const auto earlier = [&](int steps) HWY_ATTR {
      return now << steps | before >> (64 - steps);
    };
    subsets.first[i] = now ^ earlier(1) ^ earlier(4);
    subsets.second[i] = earlier(2);
    before = now;
  }
}

// Rows of a trellis' codes of kWidth bits to the codebook's units.
template <int kWidth, class D>
class TrellisLevels {
 public:
  TrellisLevels(D d, const Codebook& codebook)
      : units_(codebook.units.data()),
        table_(d, units_),
        unpacker_(d, kWidth),
        rest_(hn::Set(hn::RebindToUnsigned<D>(), (1u << kWidth) - 2)) {}

  // Calls use(i, units) for every vector of a row, whose codes have kBitSlack
  // readable bytes behind them.
  template <class Use>
  HWY_INLINE void ForRow(D d, const uint8_t* HWY_RESTRICT codes, int dim,
                         const Use& use) const {
    SubsetBits subsets;
    FindSubsets<kWidth>(codes, dim, subsets);
    if (dim < 64) {
      for (int i = 0; i < dim; i += NumLanes(D())) {
        use(i, Units(d, codes, subsets.first, subsets.second, i));
      }
      return;
    }
    for (int i = 0; i < dim; i += 64) {
#pragma GCC unroll 8
      for (int j = 0; j < 64; j += NumLanes(D())) {
        use(i + j, Units(d, codes + i / 8 * kWidth, subsets.first + i / 64,
                         subsets.second + i / 64, j));
      }
    }
  }

 private:
  static constexpr int kEntries = kCodebookEntries<kWidth + 1>;
  static constexpr bool kGathers = (kEntries > kMaxRegisterEntries<D>);
  static constexpr int kTableEntries = kGathers ? NumLanes(D()) : kEntries;

  // Of elements [i, i + lanes) of 64, whose codes and bits are given.
  HWY_INLINE hn::Vec<D> Units(D d, const uint8_t* codes, const uint64_t* first,
                              const uint64_t* second, int i) const {
    const hn::RebindToUnsigned<D> du;
    const IntTag<D> di;
    const auto rest = hn::And(unpacker_.Words(d, codes, i), rest_);
    const auto high = hn::IfThenElseZero(Mask(du, first, i), hn::Set(du, 2));
    const auto low = hn::IfThenElseZero(Mask(du, second, i), hn::Set(du, 1));
    const auto index =
        hn::BitCast(di, hn::Or(hn::Or(hn::Add(rest, rest), high), low));
    if constexpr (kGathers) {
      return hn::GatherIndex(d, units_, index);
    } else {
      return table_.Lookup(d, index);
    }
  }

  // Bits [i, i + lanes) of a word as a mask.
  template <class DU>
  static HWY_INLINE hn::Mask<DU> Mask(DU du, const uint64_t* word, int i) {
    const auto* const bits = reinterpret_cast<const uint8_t*>(word);
    if constexpr (NumLanes(D()) >= 8) {
      return hn::LoadMaskBits(du, bits + i / 8);
    } else {
      const uint8_t shifted = static_cast<uint8_t>(bits[i / 8] >> (i % 8));
      return hn::LoadMaskBits(du, &shifted);
    }
  }

  const float* const units_;
  const RegisterTable<kTableEntries, D> table_;
  const Unpacker<D> unpacker_;
  const hn::Vec<hn::RebindToUnsigned<D>> rest_;
};

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_TRELLIS_LEVELS_INL_H_
