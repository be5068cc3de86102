#ifndef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TRAITS_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TRAITS_H_

#include <optional>

#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// What a sweep must know of a quantizer before it measures; see SweepQuantizer.
struct SweepTraits {
  bool rotates = false;
  int token_multiple = 1;
  int column_tokens[2] = {0, 0};  // by Tensor
};

// Nothing for a kind that isn't in the registry.
std::optional<SweepTraits> SweepTraitsOf(const QuantizerSpec& spec);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TRAITS_H_
