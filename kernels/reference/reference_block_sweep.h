#ifndef RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_
#define RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_

#include "kernels/quantizers/block_sweep.h"

namespace ratequant::kv {

// Sends every block through a ReferenceCodec and sums in double.
class ReferenceBlockSweep final : public BlockSweep {
 public:
  // `block_tokens` is the length of every block, a page size.
  ReferenceBlockSweep(const DistortionSweep::Options& options,
                      int block_tokens);

  BlockCheck Check(const SweepBlock& block) const override {
    return FindBadElements(block, options_.head_dim);
  }
  void Run(const SweepBlock& block, absl::Span<double> sums) const override;

 private:
  const DistortionSweep::Options options_;
  const int block_tokens_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_REFERENCE_BLOCK_SWEEP_H_
