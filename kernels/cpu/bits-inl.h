// Bit streams of codes (kernels/FORMAT.md, "Rows"): pack and unpack whole
// vectors. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_BITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_BITS_INL_H_
#undef RATEQUANT_KERNELS_CPU_BITS_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_BITS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Bytes beyond the last code that packing writes and unpacking reads.
inline constexpr int kBitSlack = 16;

// Packs codes of one width.
class Packer {
 public:
  explicit Packer(int width) : width_(width) {
    for (int i = 0; i < 16; ++i) {
      const int byte = i < width ? i : 8 + i - width;
      order_[i] = static_cast<uint8_t>(byte < 16 ? byte : 0);
    }
  }

  // Packs `count` codes, rounded up to 16, into BytesOfCodes(width, count)
  // bytes and up to kBitSlack more.
  HWY_INLINE void PackRow(const uint8_t* HWY_RESTRICT codes, int count,
                          uint8_t* HWY_RESTRICT row) const {
    const hn::Full128<uint8_t> d8;
    const hn::Repartition<uint16_t, decltype(d8)> d16;
    const hn::Repartition<uint32_t, decltype(d8)> d32;
    const hn::Repartition<uint64_t, decltype(d8)> d64;
    const auto low16 = hn::Set(d16, 0xFF);
    const auto low32 = hn::Set(d32, 0xFFFF);
    const auto low64 = hn::Set(d64, 0xFFFFFFFFull);
    const auto order = hn::Load(d8, order_);
    for (int i = 0; i < count; i += 16) {
      // Neighbours are joined three times; then each half of the vector holds
      // 8 codes in its lowest `width` bytes.
      const auto v16 = hn::BitCast(d16, hn::LoadU(d8, codes + i));
      const auto v32 = hn::BitCast(d32, Join(low16, v16, 8 - width_));
      const auto v64 = hn::BitCast(d64, Join(low32, v32, 16 - 2 * width_));
      const auto joined = Join(low64, v64, 32 - 4 * width_);
      hn::StoreU(hn::TableLookupBytes(hn::BitCast(d8, joined), order), d8,
                 row + i / 8 * width_);
    }
  }

 private:
  // Moves the upper half of every lane down, next to the lower.
  template <class V>
  static HWY_INLINE V Join(V low, V v, int distance) {
    return hn::Or(hn::And(v, low),
                  hn::ShiftRightSame(hn::AndNot(low, v), distance));
  }

  int width_;
  HWY_ALIGN uint8_t order_[16];
};

// Where each of 16 codes lies, for TableLookupBytes and a shift per lane.
struct CodePositions {
  uint8_t bytes[64];   // two bytes of every lane that hold its code, and more
  int32_t shifts[16];  // from their lowest bit to the code's
};

constexpr CodePositions MakeCodePositions(int width) {
  CodePositions positions = {};
  for (int lane = 0; lane < 16; ++lane) {
    const int bit = lane * width;
    positions.shifts[lane] = bit % 8;
    // The code's second byte, or any byte that exists: what it adds is masked
    // away.
    const int second = bit / 8 < 15 ? bit / 8 + 1 : 15;
    positions.bytes[4 * lane + 1] = static_cast<uint8_t>(second);
    for (const int byte : {0, 2, 3}) {
      positions.bytes[4 * lane + byte] = static_cast<uint8_t>(bit / 8);
    }
  }
  return positions;
}

inline constexpr CodePositions kCodePositions[] = {
    MakeCodePositions(1), MakeCodePositions(2), MakeCodePositions(3),
    MakeCodePositions(4), MakeCodePositions(5), MakeCodePositions(6),
    MakeCodePositions(7), MakeCodePositions(8)};

// Reads codes of one width, a vector at a time.
template <class D>
class Unpacker {
 public:
  Unpacker(D d, int width) : width_(width) {
    const IntTag<D> di;
    const hn::Repartition<uint8_t, D> d8;
    const hn::RebindToUnsigned<D> du;
    mask_ = hn::Set(du, (1u << width) - 1);
    const CodePositions& positions = kCodePositions[width - 1];
    for (int set = 0; set < kSets; ++set) {
      bytes_[set] = hn::LoadU(d8, positions.bytes + 4 * set * kLanes);
      shifts_[set] =
          hn::BitCast(du, hn::LoadU(di, positions.shifts + set * kLanes));
    }
  }

  // Codes [first, first + lanes) of `row`; first is a multiple of the lanes.
  // Reads up to kBitSlack bytes beyond them.
  HWY_INLINE hn::Vec<IntTag<D>> Codes(D d, const uint8_t* row,
                                      int first) const {
    return hn::BitCast(IntTag<D>(), hn::And(Words(d, row, first), mask_));
  }

  // The same with other bits above each code.
  HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Words(D, const uint8_t* row,
                                                    int first) const {
    const hn::Repartition<uint8_t, D> d8;
    const hn::RebindToUnsigned<D> du;
    const int set = kSets == 1 ? 0 : first / kLanes % kSets;
    const auto loaded =
        hn::LoadDup128(d8, row + first / kStep * kStep / 8 * width_);
    const auto words =
        hn::BitCast(du, hn::TableLookupBytes(loaded, bytes_[set]));
    return hn::Shr(words, shifts_[set]);
  }

  hn::Vec<hn::RebindToUnsigned<D>> mask() const { return mask_; }

 private:
  static constexpr int kLanes = NumLanes(D());
  // 8 codes are whole bytes; vectors of 4 start in the middle every other time.
  static constexpr int kSets = kLanes < 8 ? 8 / kLanes : 1;

 public:
  // Codes from one vector that begins on a byte to the next such one.
  static constexpr int kStep = kLanes * kSets;

 private:
  int width_;
  hn::Vec<hn::Repartition<uint8_t, D>> bytes_[kSets];
  hn::Vec<hn::RebindToUnsigned<D>> shifts_[kSets];
  hn::Vec<hn::RebindToUnsigned<D>> mask_;
};

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_BITS_INL_H_
