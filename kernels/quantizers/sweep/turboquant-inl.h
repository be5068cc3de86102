// turboquant: a codebook for the coordinates of rotated, normalised tokens.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TURBOQUANT_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TURBOQUANT_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TURBOQUANT_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TURBOQUANT_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "kernels/quantizers/turboquant.h"

RQ_SWEEP_BEGIN

struct TurboquantSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = QuantizerKind::kTurboquant;
  static constexpr bool kRotates = true;

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec& spec) {
    const RowScale kind =
        row.tensor() == Tensor::kKey ? spec.key_scale : spec.value_scale;
    const float squared_norm = row.SumOfSquares();
    row.Rotate();
    const float factor = CodebookFactor(squared_norm, row.dim());
    RQ_SWEEP_LOOP
    for (int w = 0; w < row.num_widths(); ++w) {
      row.DecodeByCodebook(w, factor);
      const float dot = kind == RowScale::kUnbiased ? row.Dot() : 0.0f;
      row.Scale(TurboquantScale(kind, squared_norm, dot));
      row.MeasureRotated(w);
    }
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TURBOQUANT_INL_H_
