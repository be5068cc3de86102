#include "ratequant/kv/kv_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cache/sha256.h"
#include "kernels/quantizers/element.h"

namespace ratequant::kv {
namespace {

// Larger than any model, small enough that no size below overflows.
constexpr int kMaxLayers = 4096;
constexpr int kMaxHeads = 4096;
constexpr int kMaxSinkTokens = 1 << 20;

absl::Status CheckRange(absl::string_view name, int64_t value, int64_t low,
                        int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " ", value, " is not supported; supported are ", low,
                   " to ", high));
}

absl::Status CheckMeans(const KvCacheConfig& config) {
  if (config.means.empty()) return absl::OkStatus();
  const size_t values =
      config.groups.size() * static_cast<size_t>(config.geometry.head_dim);
  if (config.means.size() != values) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.means.size(), " means; ", config.groups.size(), " groups of ",
        config.geometry.head_dim, " channels have ", values, ", or none"));
  }
  for (size_t i = 0; i < values; ++i) {
    if (!IsOutsideHalf(config.means[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "means[", i, "] is ", config.means[i],
        "; supported are finite values of at most 65504 in magnitude"));
  }
  return absl::OkStatus();
}

absl::Status CheckConfig(const KvCacheConfig& config) {
  const KvGeometry& g = config.geometry;
  absl::Status status = CheckRange("layers", g.layers, 1, kMaxLayers);
  if (status.ok()) status = CheckRange("kv_heads", g.kv_heads, 1, kMaxHeads);
  if (status.ok()) {
    status = CheckRange("sink_tokens", config.sink_tokens, 0, kMaxSinkTokens);
  }
  if (status.ok() && config.window < 0) {
    status = absl::InvalidArgumentError(absl::StrCat(
        "window ", config.window, " is not supported; it is 0 or more"));
  }
  if (status.ok() && (g.query_heads < 0 || g.query_heads % g.kv_heads != 0)) {
    status = absl::InvalidArgumentError(
        absl::StrCat("query_heads ", g.query_heads,
                     " is not supported; it is a multiple of "
                     "the ",
                     g.kv_heads, " KV heads, or 0 without attention"));
  }
  if (!status.ok()) return status;
  const size_t groups = size_t{2} * g.layers * g.kv_heads;
  if (config.groups.size() != groups) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.groups.size(), " group formats; ", g.layers, " layers of ",
        g.kv_heads, " KV heads need ", groups, " (K and V of each head)"));
  }
  return CheckMeans(config);
}

absl::StatusOr<LayerLayout> ComputeLayerLayout(const KvCacheConfig& config,
                                               int layer) {
  const int groups = config.geometry.kv_heads * 2;
  LayerLayout layout;
  for (int g = 0; g < groups; ++g) {
    const GroupFormat& format = config.groups[layer * groups + g];
    absl::StatusOr<SectionLayout> section = ComputeSectionLayout(
        format.quantizer, g % 2 == 0 ? Tensor::kKey : Tensor::kValue,
        format.width, config.geometry.head_dim, config.page_tokens);
    if (!section.ok()) {
      return absl::Status(section.status().code(),
                          absl::StrCat("layer ", layer, ", head ", g / 2, ", ",
                                       g % 2 == 0 ? "K" : "V", ": ",
                                       section.status().message()));
    }
    layout.section_offset.push_back(layout.page_bytes);
    layout.section.push_back(*section);
    layout.page_bytes += section->section_bytes;
  }
  return layout;
}

}  // namespace

size_t KvLayout::page_bytes() const {
  size_t bytes = 0;
  for (const LayerLayout& layer : layers) bytes += layer.page_bytes;
  return bytes;
}

std::string FormatDigest(const KvCacheConfig& config) {
  const KvGeometry& g = config.geometry;
  std::string text =
      absl::StrCat("format ", kFormatVersion, "\nlayers ", g.layers,
                   "\nkv_heads ", g.kv_heads, "\nhead_dim ", g.head_dim,
                   "\npage_tokens ", config.page_tokens, "\nsink_tokens ",
                   config.sink_tokens, "\nwindow ", config.window, "\n");
  for (const GroupFormat& group : config.groups) {
    absl::StrAppend(
        &text,
        group.width == kFp16Width ? "fp16" : QuantizerName(group.quantizer),
        " ", group.width, "\n");
  }
  if (!config.means.empty()) {
    text += "means\n";
    text.append(reinterpret_cast<const char*>(config.means.data()),
                config.means.size() * sizeof(float));
  }
  return Sha256Hex(text);
}

absl::StatusOr<KvLayout> ComputeKvLayout(const KvCacheConfig& config) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  KvLayout layout;
  layout.layers.reserve(config.geometry.layers);
  for (int layer = 0; layer < config.geometry.layers; ++layer) {
    absl::StatusOr<LayerLayout> one = ComputeLayerLayout(config, layer);
    if (!one.ok()) return one.status();
    layout.layers.push_back(*std::move(one));
  }
  return layout;
}

int64_t PackedTokens(const KvCacheConfig& config, int64_t length,
                     int block_tokens) {
  const int64_t left = std::max<int64_t>(0, length - config.window);
  return left - left % block_tokens;
}

int64_t SequenceBytes(const KvCacheConfig& config, const KvLayout& layout,
                      int64_t length) {
  const KvGeometry& g = config.geometry;
  const int64_t left = std::max<int64_t>(0, length - config.window);
  const int64_t pages =
      left / config.page_tokens + (left % config.page_tokens != 0 ? 1 : 0);
  const int64_t exact =
      std::min<int64_t>(length, int64_t{config.sink_tokens} + config.window);
  const int64_t token_bytes = int64_t{4} * g.layers * g.kv_heads * g.head_dim;
  return pages * static_cast<int64_t>(layout.page_bytes()) +
         exact * token_bytes;
}

}  // namespace ratequant::kv
