#include "clients/cpp/cache_config.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/quantizer_text.h"
#include "ratequant/kv/codec.h"

namespace ratequant::client {
namespace {

absl::Status CheckShape(const v1::BitMap& map) {
  const uint64_t groups =
      uint64_t{2} * map.geometry().layers() * map.geometry().kv_heads();
  if (groups == 0) {
    return absl::InvalidArgumentError("the bit map has no geometry");
  }
  if (static_cast<uint64_t>(map.width_size()) != groups ||
      static_cast<uint64_t>(map.quantizer_index_size()) != groups) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the bit map has ", map.width_size(), " widths and ",
        map.quantizer_index_size(), " quantizers for ", groups, " groups"));
  }
  const uint32_t version = map.format_version();
  if (version != 0 && version != kv::kFormatVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("the bit map is for packed format ", version,
                     "; supported is ", kv::kFormatVersion));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<kv::QuantizerSpec>> Quantizers(
    const v1::BitMap& map) {
  std::vector<kv::QuantizerSpec> specs;
  for (const v1::Quantizer& quantizer : map.quantizers()) {
    const auto spec = QuantizerSpecOf(quantizer);
    if (!spec.ok()) return spec.status();
    specs.push_back(*spec);
  }
  return specs;
}

}  // namespace

absl::StatusOr<kv::KvCacheConfig> CacheConfigOf(const v1::BitMap& map) {
  const absl::Status shape = CheckShape(map);
  if (!shape.ok()) return shape;
  const auto quantizers = Quantizers(map);
  if (!quantizers.ok()) return quantizers.status();
  kv::KvCacheConfig config;
  config.geometry = {
      .layers = static_cast<int>(map.geometry().layers()),
      .kv_heads = static_cast<int>(map.geometry().kv_heads()),
      .head_dim = static_cast<int>(map.geometry().head_dim()),
      .query_heads = static_cast<int>(map.geometry().query_heads())};
  for (int i = 0; i < map.width_size(); ++i) {
    const uint32_t index = map.quantizer_index(i);
    if (index >= quantizers->size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the bit map names quantizer ", index, " of ", quantizers->size()));
    }
    config.groups.push_back({.quantizer = (*quantizers)[index],
                             .width = static_cast<int>(map.width(i))});
  }
  config.means.assign(map.means().begin(), map.means().end());
  if (map.cache().has_sink_tokens()) {
    config.sink_tokens = static_cast<int>(map.cache().sink_tokens());
  }
  if (map.cache().has_window()) {
    config.window = static_cast<int>(map.cache().window());
  }
  if (map.cache().page_tokens() != 0) {
    config.page_tokens = static_cast<int>(map.cache().page_tokens());
  }
  return config;
}

}  // namespace ratequant::client
