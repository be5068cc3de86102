// kivi: asymmetric grids, per channel of K over tokens, per token of V over
// channels.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_KIVI_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_KIVI_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_KIVI_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_KIVI_INL_H_
#endif

#include "kernels/quantizers/sweep/quantizer-inl.h"

RQ_SWEEP_BEGIN

struct KiviSweep : SweepQuantizer {
  static constexpr QuantizerKind kKind = QuantizerKind::kKivi;

  static RQ_HOST_DEVICE constexpr int TokenMultiple(const QuantizerSpec& spec) {
    return spec.group_size;
  }
  static RQ_HOST_DEVICE constexpr int ColumnTokens(const QuantizerSpec& spec,
                                                   Tensor tensor) {
    return tensor == Tensor::kKey ? spec.group_size : 0;
  }

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row& row, const QuantizerSpec& spec) {
    row.template MeasureGroups<AsymmetricGrid>(spec.group_size);
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_KIVI_INL_H_
