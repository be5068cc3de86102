#ifndef RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_
#define RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_

#include "kernels/quantizers/block_sweep.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {

// Measures with scalar code, and sums in double.
class ReferenceBlockSweep final : public BlockSweep {
 public:
  explicit ReferenceBlockSweep(const DistortionSweep::Options& options)
      : options_(options) {}

  BlockCheck Check(const SweepBlock& block) const override {
    return FindBadElements(block, options_.head_dim);
  }
  void Run(const SweepBlock& block, absl::Span<double> sums) const override;

 private:
  const DistortionSweep::Options options_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_
