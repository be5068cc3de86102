#include "kernels/quantizers/group_decoder.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/sweep_backend.h"

namespace ratequant::kv {

GroupDecoder::GroupDecoder(const DistortionSweep::Options& options)
    : head_dim_(options.head_dim),
      sink_tokens_(options.sink_tokens),
      block_tokens_(SweepBlockTokens(options.quantizers)) {}

absl::StatusOr<GroupDecoder> GroupDecoder::Create(
    const DistortionSweep::Options& options, Tensor tensor) {
  GroupDecoder decoder(options);
  for (const QuantizerSpec& spec : options.quantizers) {
    for (const int width : options.widths) {
      auto codec = Codec::Create({spec, tensor, width, options.head_dim,
                                  decoder.block_tokens_, options.backend});
      if (!codec.ok()) return codec.status();
      decoder.codecs_.push_back(*std::move(codec));
    }
  }
  return decoder;
}

absl::Status GroupDecoder::Decode(int index, const ConstRows& rows, int tokens,
                                  absl::Span<float> out) const {
  const Codec& codec = *codecs_[index];
  std::vector<uint8_t> section(codec.layout().section_bytes);
  const size_t row_bytes = rows.row_stride * ElementSize(rows.dtype);
  for (int first = 0; first < tokens; first += block_tokens_) {
    const int skip = std::clamp(sink_tokens_ - first, 0, block_tokens_);
    ConstRows block = rows;
    block.data = static_cast<const char*>(rows.data) + first * row_bytes;
    absl::Status status =
        codec.Encode(block, 0, block_tokens_, skip, absl::MakeSpan(section));
    if (!status.ok()) return status;
    status = codec.Decode(
        section, 0, block_tokens_,
        {&out[size_t(first) * head_dim_], DType::kFloat32, head_dim_});
    if (!status.ok()) return status;
  }
  for (int t = 0; t < std::min(sink_tokens_, tokens); ++t) {
    for (int c = 0; c < head_dim_; ++c) {
      out[size_t(t) * head_dim_ + c] =
          LoadElement(rows.data, rows.dtype, t * rows.row_stride + c);
    }
  }
  return absl::OkStatus();
}

}  // namespace ratequant::kv
