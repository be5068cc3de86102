// kernels/quantizers/sweep/registry-inl.h with one quantizer more.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_REGISTRY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_REGISTRY_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_REGISTRY_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_REGISTRY_INL_H_
#endif

#include "kernels/quantizers/sweep/fixed_point-inl.h"
#include "kernels/quantizers/sweep/kivi-inl.h"
#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "kernels/quantizers/sweep/quarot-inl.h"
#include "kernels/quantizers/sweep/rtn-inl.h"
#include "kernels/quantizers/sweep/tcq-inl.h"
#include "kernels/quantizers/sweep/turboquant-inl.h"

RQ_SWEEP_BEGIN

using SweepQuantizers =
    QuantizerList<RtnSweep, KiviSweep, QuarotSweep, TurboquantSweep, TcqSweep,
                  FixedPointSweep>;

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_REGISTRY_INL_H_
