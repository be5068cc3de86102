// rtn: a symmetric grid per token.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_RTN_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_RTN_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_RTN_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_RTN_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "kernels/quantizers/uniform.h"

RQ_SWEEP_BEGIN

// Levels -L..L times the scale, or, of one bit, -1 and +1 times it.
struct SymmetricGrid {
  static RQ_SWEEP_INLINE GridParams<float> Make(ValueRange range, int width) {
    const float low = fabsf(range.low), high = fabsf(range.high);
    const float scale = SymmetricScale(low < high ? high : low, width);
    return {0.0f, scale, ReciprocalOrZero(scale)};
  }

  template <class Row>
  static RQ_SWEEP_INLINE typename Row::Vec Decode(
      typename Row::Vec x, const GridParams<typename Row::Vec>& grid,
      int width) {
    // -0 is not below 0.
    if (width == 1) return Row::CopySign(grid.scale, x + Row::Set(0.0f));
    const float limit = static_cast<float>((1 << (width - 1)) - 1);
    return Row::Round(x * grid.reciprocal, Row::Set(-limit), Row::Set(limit)) *
           grid.scale;
  }
};

struct RtnSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = QuantizerKind::kRtn;

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec&) {
    const ValueRange range = row.Range();
    RQ_SWEEP_LOOP
    for (int w = 0; w < row.num_widths(); ++w) {
      row.Measure(w, GridMap<SymmetricGrid, Row>(range, row.width(w)));
    }
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_RTN_INL_H_
