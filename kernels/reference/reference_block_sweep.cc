#include "kernels/reference/reference_block_sweep.h"

#include <algorithm>
#include <vector>

#include "kernels/quantizers/element.h"
#include "kernels/reference/scalar_block.h"

namespace ratequant::kv {
namespace {

std::vector<float> LoadBlock(const void* data, DType dtype, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = LoadElement(data, dtype, i);
  return values;
}

}  // namespace

void ReferenceBlockSweep::Run(const SweepBlock& block,
                              absl::Span<double> sums) const {
  const int dim = options_.head_dim;
  const size_t count = static_cast<size_t>(block.tokens) * dim;
  const std::vector<double> measured = MeasureBlock(
      {block.tensor, dim, block.tokens, block.skip_tokens,
       LoadBlock(block.values, block.dtype, count),
       LoadBlock(block.gradients, block.dtype, count)},
      options_.quantizers, options_.widths);
  std::copy(measured.begin(), measured.end(), sums.begin());
}

}  // namespace ratequant::kv
