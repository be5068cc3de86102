#ifndef RATEQUANT_KERNELS_QUANTIZERS_BLOCK_SWEEP_H_
#define RATEQUANT_KERNELS_QUANTIZERS_BLOCK_SWEEP_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Consecutive tokens of one head, dense: [tokens, head_dim]. Blocks start at a
// multiple of their length, which is a multiple of every group size.
struct SweepBlock {
  Tensor tensor = Tensor::kKey;
  DType dtype = DType::kFloat32;
  const void* values = nullptr;
  const void* gradients = nullptr;
  int tokens = 0;
  int skip_tokens = 0;  // sinks at the block's start, below `tokens`
};

// What a block holds besides numbers to measure.
struct BlockCheck {
  // First bad element within the block, or -1.
  int64_t bad_value = -1;
  int64_t bad_gradient = -1;
  bool has_nonzero = false;  // among the values that aren't sinks
};

// Looks at every element, one after the other.
BlockCheck FindBadElements(const SweepBlock& block, int head_dim);

// One CPU backend's way to measure a block. Thread-safe.
class BlockSweep {
 public:
  virtual ~BlockSweep() = default;

  virtual BlockCheck Check(const SweepBlock& block) const = 0;

  // Overwrites `sums`, [SweepSums::Size]. `block` has passed Check: all values
  // are finite and within fp16's range; gradients are finite.
  virtual void Run(const SweepBlock& block, absl::Span<double> sums) const = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_BLOCK_SWEEP_H_
