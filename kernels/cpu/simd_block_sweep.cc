#include "kernels/cpu/simd_block_sweep.h"

#include <utility>

#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/sweep/traits.h"
#include "kernels/quantizers/trellis.h"
#include "kernels/quantizers/trellis_codebook.h"

namespace ratequant::kv {
SimdBlockSweep::SimdBlockSweep(const DistortionSweep::Options& options,
                               const SweepKernels& kernels)
    : kernels_(kernels) {
  plan_.dim = options.head_dim;
  plan_.widths = options.widths;
  bool any_rotates = false;
  for (const QuantizerSpec& spec : options.quantizers) {
    SweepPlan::Quantizer quantizer{spec, {}};
    const bool rotates = SweepTraitsOf(spec)->rotates;
    for (int c = 0; rotates && c < plan_.dim; ++c) {
      quantizer.signs.push_back(RotationSign(spec.seed, c));
    }
    any_rotates |= rotates;
    plan_.quantizers.push_back(std::move(quantizer));
  }
  if (!any_rotates) return;  // a head_dim without codebooks, perhaps
  for (const int width : plan_.widths) {
    plan_.codebooks.push_back(&GetCodebook(plan_.dim, width));
    plan_.trellis_codebooks.push_back(
        IsTrellisWidth(width) ? &GetTrellisCodebook(plan_.dim, width)
                              : nullptr);
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
