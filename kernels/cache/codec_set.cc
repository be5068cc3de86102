#include "kernels/cache/codec_set.h"

#include <utility>

namespace ratequant::kv {

absl::StatusOr<std::vector<std::shared_ptr<const Codec>>> CodecSet::OfLayer(
    int layer) {
  const int groups = config_.geometry.kv_heads * 2;
  std::vector<std::shared_ptr<const Codec>> codecs;
  for (int g = 0; g < groups; ++g) {
    absl::StatusOr<std::shared_ptr<const Codec>> codec =
        Get(config_.groups[layer * groups + g],
            g % 2 == 0 ? Tensor::kKey : Tensor::kValue);
    if (!codec.ok()) return codec.status();
    codecs.push_back(*std::move(codec));
  }
  return codecs;
}

absl::StatusOr<std::shared_ptr<const Codec>> CodecSet::Get(
    const GroupFormat& format, Tensor tensor) {
  const QuantizerSpec& q = format.quantizer;
  const Key key = format.width == kFp16Width
                      ? Key{0, 0, 0, 0, 0, tensor, format.width}
                      : Key{static_cast<int>(q.kind),
                            q.group_size,
                            q.seed,
                            static_cast<int>(q.key_scale),
                            static_cast<int>(q.value_scale),
                            tensor,
                            format.width};
  std::shared_ptr<const Codec>& codec = codecs_[key];
  if (codec == nullptr) {
    absl::StatusOr<std::unique_ptr<Codec>> made =
        Codec::Create({q, tensor, format.width, config_.geometry.head_dim,
                       config_.page_tokens, backend_, true});
    if (!made.ok()) return made.status();
    codec = *std::move(made);
  }
  return codec;
}

}  // namespace ratequant::kv
