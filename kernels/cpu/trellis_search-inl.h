// TrellisPath of kernels/quantizers/trellis.h, its states in vectors. Included
// once per target.

#if defined(RATEQUANT_KERNELS_CPU_TRELLIS_SEARCH_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_TRELLIS_SEARCH_INL_H_
#undef RATEQUANT_KERNELS_CPU_TRELLIS_SEARCH_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_TRELLIS_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/quantizers/trellis.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Codes rows by the trellis, with the bits that TrellisPath gives.
class TrellisCoder {
 public:
  // z is [dim], scaled to the codebook, whose `levels` are [2^(width + 1)].
  // `codes` and `indexes` of levels are [dim].
  void Code(const float* HWY_RESTRICT z, int dim, int width,
            const float* HWY_RESTRICT levels, uint8_t* HWY_RESTRICT codes,
            uint8_t* HWY_RESTRICT indexes) {
    for (int i = 0; i < dim; i += NumLanes(NarrowTag())) {
      FindCosts(z + i, width, levels, i);
    }
    const int run_up = TrellisRunUp(dim);
    const int before = dim - run_up / 2;
    Metrics metrics = AllStates();
    for (int i = before; i < dim; ++i) Step(i, metrics);
    for (int i = 0; i < run_up / 2; ++i) Step(i, metrics);
    unsigned place = PlaceOf(Best(metrics));
    for (int i = run_up / 2; i-- > 0;) place = Before(place, Oldest(place, i));

    metrics = OneState(StateAt(place));
    for (int i = 0; i < dim; ++i) Step(i, metrics);
    for (int i = dim; i-- > 0;) {
      const unsigned oldest = Oldest(place, i);
      const unsigned bit = place >> 4;
      const unsigned subset =
          2 * (bit ^ (place & 1) ^ oldest) + (place >> 1 & 1);
      const unsigned k = nearest_[subset][i];
      codes[i] = static_cast<uint8_t>(k << 1 | bit);
      indexes[i] = static_cast<uint8_t>(kTrellisSubsets * k + subset);
      place = Before(place, oldest);
    }
  }

 private:
  static constexpr int kParts = kTrellisStates / 4;
  using States = hn::Full128<float>;  // four of them
  using Vec = hn::Vec<States>;

  struct Metrics {
    Vec part[kParts];
  };

  static HWY_INLINE Metrics AllStates() {
    const Vec zero = hn::Zero(States());
    return {{zero, zero, zero, zero}};
  }

  static Metrics OneState(int state) {
    HWY_ALIGN float values[kTrellisStates];
    std::fill_n(values, kTrellisStates, kTrellisFar);
    values[state] = 0.0f;
    Metrics metrics;
    for (int p = 0; p < kParts; ++p) {
      metrics.part[p] = hn::Load(States(), values + 4 * p);
    }
    return metrics;
  }

  static int Best(const Metrics& metrics) {
    HWY_ALIGN float values[kTrellisStates];
    for (int p = 0; p < kParts; ++p) {
      hn::Store(metrics.part[p], States(), values + 4 * p);
    }
    return static_cast<int>(std::min_element(values, values + kTrellisStates) -
                            values);
  }

  // Of a vector of elements from `first` on: for each subset, the level next to
  // it and its cost.
  HWY_INLINE void FindCosts(const float* HWY_RESTRICT z, int width,
                            const float* HWY_RESTRICT levels, int first) {
    const NarrowTag d;
    const IntTag<NarrowTag> di;
    const hn::Rebind<uint8_t, NarrowTag> d8;
    const auto x = hn::LoadU(d, z);
    const int last = (1 << (width - 1)) - 1;
    hn::Vec<NarrowTag> costs[kTrellisSubsets];
    for (int s = 0; s < kTrellisSubsets; ++s) {
      auto k = hn::Zero(di);
      auto level = hn::Set(d, levels[s]);
      for (int i = 0; i < last; ++i) {
        const float* const pair = levels + kTrellisSubsets * i + s;
        const auto above =
            hn::Lt(hn::Set(d, 0.5f * (pair[0] + pair[kTrellisSubsets])), x);
        // A true mask is -1.
        k = hn::Sub(k, hn::VecFromMask(di, hn::RebindMask(di, above)));
        level = hn::IfThenElse(above, hn::Set(d, pair[kTrellisSubsets]), level);
      }
      const auto error = hn::Sub(x, level);
      costs[s] = hn::Mul(error, error);
      hn::StoreU(hn::DemoteTo(d8, k), d8, nearest_[s] + first);
    }
    // In the order of the subsets that states 0 to 3, and 4 to 7, lead to with
    // the coded bit 0.
    hn::StoreInterleaved4(costs[0], costs[2], costs[1], costs[3], d,
                          costs_ + kTrellisSubsets * first);
  }

  // One element on. States 2j and 2j + 1 come from j and, where the oldest
  // coded bit is set, j + 8; that bit and the newest one each change the
  // subset's first bit.
  HWY_INLINE void Step(int i, Metrics& metrics) {
    const States d;
    const Vec a = hn::Load(d, costs_ + kTrellisSubsets * i);
    const Vec b = hn::Reverse2(d, a);
    uint8_t* const decisions = decisions_[i];
    const auto [low0, low1, high0, high1] = metrics.part;
    const Vec even0 = Choose(hn::Add(low0, a), hn::Add(high0, b), decisions);
    const Vec even1 =
        Choose(hn::Add(low1, a), hn::Add(high1, b), decisions + 1);
    const Vec odd0 = Choose(hn::Add(low0, b), hn::Add(high0, a), decisions + 2);
    const Vec odd1 = Choose(hn::Add(low1, b), hn::Add(high1, a), decisions + 3);
    metrics = {{hn::InterleaveLower(d, even0, odd0),
                hn::InterleaveUpper(d, even0, odd0),
                hn::InterleaveLower(d, even1, odd1),
                hn::InterleaveUpper(d, even1, odd1)}};
  }

  static HWY_INLINE Vec Choose(Vec by_low, Vec by_high, uint8_t* decisions) {
    const States d;
    const auto upper = hn::Lt(by_high, by_low);
    hn::StoreMaskBits(d, upper, decisions);
    return hn::IfThenElse(upper, by_high, by_low);
  }

  // Walking back is one long dependency, so states are kept as the places of
  // their bits in a word of decisions: of a state's bits s0 (the newest coded
  // bit) to s3, s0 is bit 4 of the place, s3 bit 3, s2 and s1 bits 1 and 0.
  static unsigned PlaceOf(int state) {
    return static_cast<unsigned>((state & 1) << 4 | (state & 8) |
                                 (state >> 1 & 3));
  }
  static int StateAt(unsigned place) {
    return static_cast<int>(place >> 4 | (place & 3) << 1 | (place & 8));
  }

  // The oldest coded bit of the state before element i.
  HWY_INLINE unsigned Oldest(unsigned place, int i) const {
    const uint8_t* const parts = decisions_[i];
    const uint32_t word = static_cast<uint32_t>(parts[0]) | parts[1] << 8 |
                          parts[2] << 16 |
                          static_cast<uint32_t>(parts[3]) << 24;
    return word >> place & 1;
  }
  // The place before the element that `oldest` is of.
  static HWY_INLINE unsigned Before(unsigned place, unsigned oldest) {
    return (place & 1) << 4 | oldest << 3 | (place >> 2 & 2) | (place >> 1 & 1);
  }

  HWY_ALIGN float costs_[kTrellisSubsets * kMaxDim];
  uint8_t nearest_[kTrellisSubsets][kMaxDim];
  uint8_t decisions_[kMaxDim][kParts];
};

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_TRELLIS_SEARCH_INL_H_
