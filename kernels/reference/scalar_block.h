#ifndef RATEQUANT_KERNELS_REFERENCE_SCALAR_BLOCK_H_
#define RATEQUANT_KERNELS_REFERENCE_SCALAR_BLOCK_H_

#include <vector>

#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Consecutive tokens of one head, from a multiple of their number on. In plain
// C++, for machines that have nothing but the CUDA toolkit.
struct ScalarBlock {
  Tensor tensor = Tensor::kKey;
  int dim = 0;
  int tokens = 0;
  int skip_tokens = 0;   // sinks at the block's start
  std::vector<float> x;  // [tokens, dim]
  std::vector<float> y;  // their gradients
};

// The block's sums, [SweepSums::Size], in double: every quantizer of the
// registry, one float after the other.
std::vector<double> MeasureBlock(const ScalarBlock& block,
                                 const std::vector<QuantizerSpec>& quantizers,
                                 const std::vector<int>& widths);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_SCALAR_BLOCK_H_
