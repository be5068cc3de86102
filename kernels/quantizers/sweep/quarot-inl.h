// quarot: an asymmetric grid per rotated token.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUAROT_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUAROT_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUAROT_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUAROT_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"

RQ_SWEEP_BEGIN

struct QuarotSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = QuantizerKind::kQuarot;
  static constexpr bool kRotates = true;

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec&) {
    row.Rotate();
    const ValueRange range = row.Range();
    RQ_SWEEP_LOOP
    for (int w = 0; w < row.num_widths(); ++w) {
      row.Decode(GridMap<AsymmetricGrid, Row>(range, row.width(w)));
      row.MeasureRotated(w);
    }
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUAROT_INL_H_
