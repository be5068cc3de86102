#include "clients/cpp/loaded_bit_map.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/cache_config.h"
#include "clients/cpp/canonical_digest.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::client {
namespace {

// A bit map's id is the digest of its content with the model's name as its own
// (proto/ratequant/v1/bit_map.proto).
absl::Status CheckDigest(const v1::GetBitMapResponse& answer) {
  if (!answer.has_bit_map()) {
    return absl::DataLossError("the answer has no bit map");
  }
  v1::BitMap content = answer.bit_map();
  const std::string id = ResourceId(content.name());
  if (id != answer.etag()) {
    return absl::DataLossError(absl::StrCat(
        "the answer's etag is ", answer.etag(), ", but its bit map is ", id));
  }
  content.set_name(ModelName(ModelIdOf(content.name())));
  const std::string digest = CanonicalDigest(content);
  if (digest == id) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the content of bit map ", id,
                                          " has the digest ", digest,
                                          ": it was changed on its way"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LoadedBitMap>> LoadBitMap(
    v1::GetBitMapResponse answer) {
  const absl::Status digest = CheckDigest(answer);
  if (!digest.ok()) return digest;
  auto config = CacheConfigOf(answer.bit_map());
  if (!config.ok()) return config.status();
  auto layout = kv::ComputeKvLayout(*config);
  if (!layout.ok()) return layout.status();
  auto loaded = std::make_shared<LoadedBitMap>();
  loaded->etag = answer.etag();
  loaded->answer = std::move(answer);
  loaded->config = *std::move(config);
  loaded->layout = *std::move(layout);
  return loaded;
}

}  // namespace ratequant::client
