#include "kernels/quantizers/block_sweep.h"

#include <cmath>

#include "kernels/quantizers/element.h"

namespace ratequant::kv {

BlockCheck FindBadElements(const SweepBlock& block, int head_dim) {
  BlockCheck check;
  const int64_t count = int64_t{block.tokens} * head_dim;
  const int64_t sinks = int64_t{block.skip_tokens} * head_dim;
  for (int64_t i = 0; i < count; ++i) {
    const float value = LoadElement(block.values, block.dtype, i);
    if (check.bad_value < 0 && IsOutsideHalf(value)) check.bad_value = i;
    if (i >= sinks && value != 0.0f) check.has_nonzero = true;
    const float gradient = LoadElement(block.gradients, block.dtype, i);
    if (check.bad_gradient < 0 && !std::isfinite(gradient)) {
      check.bad_gradient = i;
    }
  }
  return check;
}

}  // namespace ratequant::kv
