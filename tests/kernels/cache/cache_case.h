#ifndef RATEQUANT_TESTS_KERNELS_CACHE_CACHE_CASE_H_
#define RATEQUANT_TESTS_KERNELS_CACHE_CACHE_CASE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {

inline constexpr int kLayers = 2;
inline constexpr int kHeads = 2;
inline constexpr int kDim = 32;

// Two layers of two heads of 32 channels with a different format in every
// group: all quantizers, kivi K with groups of 32 and 16, fp16.
KvCacheConfig MixedConfig(int page_tokens, int sink_tokens, int window);

// Gives every group means of its own.
void AddMeans(KvCacheConfig& config);

// K or V of one layer, dense [heads, tokens, dim], fp32.
struct Values {
  int64_t tokens = 0;
  std::vector<float> data;

  float at(int head, int64_t token, int channel) const {
    return data[(head * tokens + token) * kDim + channel];
  }
};

// Pseudo-random values, the same for the same seed.
Values RandomValues(int64_t tokens, uint64_t seed);

// Tokens [first, first + count) in place.
ConstHeads Slice(const Values& values, int64_t first);

// Appends all of `keys` and `values` to one layer, in chunks of the given sizes
// (the last one repeats).
absl::Status AppendChunked(KvCache& cache, KvCache::SequenceId id, int layer,
                           const Values& keys, const Values& values,
                           const std::vector<int64_t>& chunks);

// K and V of a layer, read back.
struct Gathered {
  Values keys;
  Values values;
};
Gathered GatherAll(const KvCache& cache, KvCache::SequenceId id, int layer);

// What a cache must hold, worked out from whole sequences: tokens below
// `sink_tokens` and from `exact_from` on are rounded to fp16; pages are encoded
// in one go by a codec of their own.
class Oracle {
 public:
  Oracle(const KvCacheConfig& config, int layer, int group,
         const Values& values);

  // Bytes of page `page`.
  const std::vector<uint8_t>& section(int64_t page) const {
    return sections_[page];
  }
  int64_t pages() const { return static_cast<int64_t>(sections_.size()); }

  // [tokens, dim] as Gather gives it in fp32.
  const std::vector<float>& rows() const { return rows_; }

 private:
  std::vector<std::vector<uint8_t>> sections_;
  std::vector<float> rows_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_CACHE_CACHE_CASE_H_
