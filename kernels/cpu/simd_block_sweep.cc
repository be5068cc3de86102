#include "kernels/cpu/simd_block_sweep.h"

#include <utility>

#include "kernels/quantizers/rotation.h"

namespace ratequant::kv {
namespace {

SweepPlan::Quantizer PlanQuantizer(const QuantizerSpec& spec, int dim,
                                   const std::vector<int>& widths) {
  SweepPlan::Quantizer quantizer{spec, {}, {}};
  const bool turboquant = spec.kind == QuantizerKind::kTurboquant;
  if (turboquant || spec.kind == QuantizerKind::kQuarot) {
    for (int c = 0; c < dim; ++c) {
      quantizer.signs.push_back(RotationSign(spec.seed, c));
    }
  }
  if (turboquant) {
    for (const int width : widths) {
      quantizer.codebooks.push_back(&GetCodebook(dim, width));
    }
  }
  return quantizer;
}

}  // namespace

SimdBlockSweep::SimdBlockSweep(const DistortionSweep::Options& options,
                               const SweepKernels& kernels)
    : kernels_(kernels) {
  plan_.dim = options.head_dim;
  plan_.widths = options.widths;
  for (const QuantizerSpec& spec : options.quantizers) {
    plan_.quantizers.push_back(PlanQuantizer(spec, plan_.dim, plan_.widths));
  }
}

BlockCheck SimdBlockSweep::Check(const SweepBlock& block) const {
  BlockCheck check;
  if (kernels_.check(block, plan_.dim, check.has_nonzero)) return check;
  return FindBadElements(block, plan_.dim);
}

void SimdBlockSweep::Run(const SweepBlock& block,
                         absl::Span<double> sums) const {
  kernels_.run(plan_, block, sums.data());
}

}  // namespace ratequant::kv
