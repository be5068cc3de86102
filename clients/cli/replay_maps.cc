#include "clients/cli/replay_maps.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/cache_config.h"
#include "clients/replay/mapped_file.h"
#include "google/protobuf/util/json_util.h"
#include "ratequant/kv/quantizer.h"

namespace ratequant::cli {
namespace {

// A map of a million groups has a few megabytes.
constexpr size_t kMaxMapBytes = 64 << 20;

}  // namespace

absl::StatusOr<replay::ReplayMap> ReadMapFile(const std::string& path) {
  const auto file = replay::MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::string_view text = file->bytes();
  if (text.size() > kMaxMapBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has ", text.size(),
                                                   " bytes, too many for a bit "
                                                   "map"));
  }
  v1::BitMap map;
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(text.data(), text.size()), &map);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is not a bit map that 'ratequant bitmap get --json' printed: ",
        std::string(parsed.message())));
  }
  auto config = client::CacheConfigOf(map);
  if (!config.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", config.status().message()));
  }
  return replay::ReplayMap{.name = path, .config = *std::move(config)};
}

absl::StatusOr<replay::ReplayMap> UniformMap(const std::string& text,
                                             const kv::KvGeometry& geometry) {
  kv::GroupFormat format;
  if (text != "fp16") {
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos ||
        !absl::SimpleAtoi(text.substr(colon + 1), &format.width) ||
        !kv::IsCodeWidth(format.width)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", text,
          "' is not QUANTIZER:WIDTH with a width from 1 to 8, such "
          "as kivi:4 or kivi:group_size=64:4, or fp16"));
    }
    const auto quantizer = kv::ParseQuantizer(text.substr(0, colon));
    if (!quantizer.ok()) return quantizer.status();
    format.quantizer = *quantizer;
  }
  replay::ReplayMap map;
  map.name = text;
  map.config.geometry = geometry;
  map.config.groups.assign(size_t{2} * geometry.layers * geometry.kv_heads,
                           format);
  return map;
}

}  // namespace ratequant::cli
