// A quantizer that only a test has: `width` bits behind the binary point.

#if defined(RATEQUANT_TESTS_KERNELS_SWEEP_FIXED_POINT_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_TESTS_KERNELS_SWEEP_FIXED_POINT_INL_H_
#undef RATEQUANT_TESTS_KERNELS_SWEEP_FIXED_POINT_INL_H_
#else
#define RATEQUANT_TESTS_KERNELS_SWEEP_FIXED_POINT_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"

RQ_SWEEP_BEGIN

template <class Row>
struct FixedPointMap {
  using Vec = typename Row::Vec;
  float unit;

  RQ_SWEEP_INLINE Vec operator()(Vec x) const {
    return Row::Round(x * Row::Set(1.0f / unit), Row::Set(-1024.0f),
                      Row::Set(1024.0f)) *
           Row::Set(unit);
  }
};

struct FixedPointSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = static_cast<QuantizerKind>(100);

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec&) {
    RQ_SWEEP_LOOP
    for (int w = 0; w < row.num_widths(); ++w) {
      row.Measure(
          w, FixedPointMap<Row>{1.0f / static_cast<float>(1 << row.width(w))});
    }
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_TESTS_KERNELS_SWEEP_FIXED_POINT_INL_H_
