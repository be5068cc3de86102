#include "kernels/quantizers/sweep/traits.h"

#include "kernels/quantizers/sweep/registry-inl.h"

namespace ratequant::kv {

std::optional<SweepTraits> SweepTraitsOf(const QuantizerSpec& spec) {
  SweepTraits traits;
  const auto fill = [&]<class Quantizer>(Quantizer) {
    traits.rotates = Quantizer::kRotates;
    traits.token_multiple = Quantizer::TokenMultiple(spec);
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      traits.column_tokens[static_cast<int>(tensor)] =
          Quantizer::ColumnTokens(spec, tensor);
    }
  };
  if (!sweep::SweepQuantizers::Visit(spec.kind, fill)) return std::nullopt;
  return traits;
}

}  // namespace ratequant::kv
