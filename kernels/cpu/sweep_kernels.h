#ifndef RATEQUANT_KERNELS_CPU_SWEEP_KERNELS_H_
#define RATEQUANT_KERNELS_CPU_SWEEP_KERNELS_H_

#include <vector>

#include "kernels/quantizers/block_sweep.h"
#include "kernels/quantizers/codebook.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {

// What the SIMD kernels need to know of a sweep.
struct SweepPlan {
  struct Quantizer {
    QuantizerSpec spec;
    std::vector<float> signs;  // [dim], where it rotates
  };

  int dim = 0;
  std::vector<int> widths;
  std::vector<const Codebook*> codebooks;  // [widths], where one rotates
  // The same; null at widths without a trellis.
  std::vector<const Codebook*> trellis_codebooks;
  std::vector<Quantizer> quantizers;
};

// The kernels for one instruction set.
struct SweepKernels {
  // BlockSweep::Run; `sums` is [SweepSums::Size].
  void (*run)(const SweepPlan& plan, const SweepBlock& block, double* sums);

  // True when a block holds no NaN, no infinity and no value that fp16 can't
  // hold. Sets `has_nonzero` when a value that isn't a sink is not zero.
  bool (*check)(const SweepBlock& block, int dim, bool& has_nonzero);
};

// For this CPU; null when it has no vectors that they are written for (x86
// before AVX2).
const SweepKernels* GetSweepKernels();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_SWEEP_KERNELS_H_
