#ifndef RATEQUANT_KERNELS_CACHE_CODEC_SET_H_
#define RATEQUANT_KERNELS_CACHE_CODEC_SET_H_

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::kv {

// The codecs of a cache: one for all groups of equal format.
class CodecSet {
 public:
  // `config` outlives the set.
  CodecSet(const KvCacheConfig& config, Backend backend)
      : config_(config), backend_(backend) {}

  // [kv_heads * 2]. Errors of Codec::Create.
  absl::StatusOr<std::vector<std::shared_ptr<const Codec>>> OfLayer(int layer);

 private:
  // kind, group size, seed, scales of K and V, tensor, width
  using Key = std::tuple<int, int32_t, uint64_t, int, int, Tensor, int>;

  absl::StatusOr<std::shared_ptr<const Codec>> Get(const GroupFormat& format,
                                                   Tensor tensor);

  const KvCacheConfig& config_;
  const Backend backend_;
  std::map<Key, std::shared_ptr<const Codec>> codecs_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_CODEC_SET_H_
