#ifndef RATEQUANT_KERNELS_CPU_SIMD_BLOCK_SWEEP_H_
#define RATEQUANT_KERNELS_CPU_SIMD_BLOCK_SWEEP_H_

#include "kernels/cpu/sweep_kernels.h"
#include "kernels/quantizers/block_sweep.h"

namespace ratequant::kv {

// Measures every quantizer and width in registers, without packing: the errors
// are those of a round trip through the codec, to the bit.
class SimdBlockSweep final : public BlockSweep {
 public:
  SimdBlockSweep(const DistortionSweep::Options& options,
                 const SweepKernels& kernels);

  BlockCheck Check(const SweepBlock& block) const override;
  void Run(const SweepBlock& block, absl::Span<double> sums) const override;

 private:
  const SweepKernels& kernels_;
  SweepPlan plan_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_SIMD_BLOCK_SWEEP_H_
