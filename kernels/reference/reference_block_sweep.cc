#include "kernels/reference/reference_block_sweep.h"

#include <algorithm>
#include <vector>

#include "kernels/quantizers/element.h"
#include "kernels/reference/reference_codec.h"

namespace ratequant::kv {
namespace {

std::vector<float> LoadBlock(const void* data, DType dtype, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = LoadElement(data, dtype, i);
  return values;
}

std::vector<float> RoundTrip(const Codec& codec, const SweepBlock& block,
                             size_t count) {
  const int dim = codec.options().head_dim;
  std::vector<uint8_t> section(codec.layout().section_bytes);
  std::vector<float> decoded(count);
  // The caller has checked the values and made the ranges, so neither fails.
  codec
      .Encode({block.values, block.dtype, dim}, 0, block.tokens,
              block.skip_tokens, absl::MakeSpan(section))
      .IgnoreError();
  codec.Decode(section, 0, block.tokens, {decoded.data(), DType::kFloat32, dim})
      .IgnoreError();
  return decoded;
}

}  // namespace

ReferenceBlockSweep::ReferenceBlockSweep(
    const DistortionSweep::Options& options, int block_tokens)
    : options_(options), block_tokens_(block_tokens) {}

void ReferenceBlockSweep::Run(const SweepBlock& block,
                              absl::Span<double> sums) const {
  const int dim = options_.head_dim;
  const size_t count = static_cast<size_t>(block.tokens) * dim;
  const std::vector<float> x = LoadBlock(block.values, block.dtype, count);
  const std::vector<float> y = LoadBlock(block.gradients, block.dtype, count);
  const size_t start = static_cast<size_t>(block.skip_tokens) * dim;
  std::fill(sums.begin(), sums.end(), 0.0);
  for (size_t i = start; i < count; ++i) {
    sums[0] += static_cast<double>(y[i]) * y[i];
    sums[1] += static_cast<double>(x[i]) * x[i];
  }
  for (size_t q = 0; q < options_.quantizers.size(); ++q) {
    for (size_t w = 0; w < options_.widths.size(); ++w) {
      const ReferenceCodec codec({options_.quantizers[q], block.tensor,
                                  options_.widths[w], dim, block_tokens_,
                                  Backend::kReference});
      const std::vector<float> decoded = RoundTrip(codec, block, count);
      double* const pair = &sums[SweepSums::PairOffset(options_, q, w)];
      for (size_t row = start; row < count; row += dim) {
        double projection = 0.0;
        for (size_t i = row; i < row + dim; ++i) {
          const double e = static_cast<double>(decoded[i]) - x[i];
          pair[0] += e * e;
          pair[1] += (y[i] * e) * (y[i] * e);
          projection += y[i] * e;
        }
        pair[2] += projection * projection;
      }
    }
  }
}

}  // namespace ratequant::kv
