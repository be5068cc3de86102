// tcq: trellis-coded rotated tokens with 8-bit gains.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TCQ_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TCQ_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TCQ_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TCQ_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "kernels/quantizers/tcq.h"
#include "kernels/quantizers/trellis.h"

RQ_SWEEP_BEGIN

struct TcqSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = QuantizerKind::kTcq;
  static constexpr bool kRotates = true;

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec& spec) {
    const RowScale kind =
        row.tensor() == Tensor::kKey ? spec.key_scale : spec.value_scale;
    const float squared_norm = row.SumOfSquares();
    row.Rotate();
    const int gain = TcqGain(squared_norm);
    const float factor = TcqFactor(gain, row.dim());
    RQ_SWEEP_LOOP
    for (int w = 0; w < row.num_widths(); ++w) {
      if (IsTrellisWidth(row.width(w))) {
        row.DecodeByTrellis(w, factor);
      } else {
        row.DecodeByCodebook(w, factor);
      }
      const float dot = kind == RowScale::kUnbiased ? row.Dot() : 0.0f;
      row.Scale(GainOfCode(TcqStoredGain(kind, squared_norm, gain, dot)));
      row.MeasureRotated(w);
    }
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TCQ_INL_H_
