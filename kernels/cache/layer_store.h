#ifndef RATEQUANT_KERNELS_CACHE_LAYER_STORE_H_
#define RATEQUANT_KERNELS_CACHE_LAYER_STORE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cache/page_pool.h"
#include "kernels/cache/token_ring.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/kv_cache.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::kv {

// What all sequences share of one layer. Immutable but for the pool, which is
// thread-safe.
struct LayerPlan {
  LayerPlan(const KvCacheConfig* config, int layer, const LayerLayout* layout,
            std::vector<std::shared_ptr<const Codec>> codecs)
      : config(config),
        layer(layer),
        layout(layout),
        codecs(std::move(codecs)),
        pool(layout->page_bytes) {}

  const KvCacheConfig* config;
  int layer;
  const LayerLayout* layout;
  std::vector<std::shared_ptr<const Codec>> codecs;  // [kv_heads * 2]
  PagePool pool;
};

// The tokens of one layer of one sequence. Group g is head g / 2, K when g is
// even. Of each group, tokens below sink_tokens are in `sinks_`, packed tokens
// in pages, the rest in a ring. Thread-compatible.
class LayerStore {
 public:
  explicit LayerStore(LayerPlan* plan) : plan_(plan) {}

  int64_t length() const { return length_; }
  int64_t AllocatedBytes() const;

  // As in KvCache, for arguments that were checked already: all but the values
  // themselves. At least one token.
  absl::Status Append(int64_t tokens, const ConstHeads& keys,
                      const ConstHeads& values);
  absl::Status Gather(int64_t first, int64_t count, const MutableHeads& keys,
                      const MutableHeads& values) const;

  absl::StatusOr<absl::Span<const uint8_t>> Section(int group,
                                                    int64_t page) const;

 private:
  struct Change;

  int groups() const { return static_cast<int>(plan_->codecs.size()); }
  int head_dim() const { return plan_->config->geometry.head_dim; }
  int64_t Packed(int group, int64_t length) const;
  // First position of a group that is in its ring.
  int64_t RingBegin(int group, int64_t length) const;

  absl::Status CheckValues(const Change& change) const;
  absl::Status Allocate(Change& change) const;
  absl::Status AllocateRing(int group, Change& change) const;
  absl::Status Encode(int group, Change& change);
  ConstRows RowsToEncode(int group, int64_t first, int64_t count,
                         Change& change) const;
  void Commit(Change& change);
  void CommitGroup(int group, Change& change);
  absl::Status GatherGroup(int group, int64_t first, int64_t count,
                           const MutableRows& out) const;
  absl::Span<const uint8_t> SectionOf(const Page& page, int group) const;
  absl::Status DecodePages(int group, int64_t first, int64_t count,
                           const MutableRows& out) const;
  absl::Status Annotate(int group, const absl::Status& status) const;

  LayerPlan* plan_;
  int64_t length_ = 0;
  std::vector<Page> pages_;
  std::vector<TokenRing> rings_;       // [groups]; empty before the first token
  std::unique_ptr<uint16_t[]> sinks_;  // [groups, sink_tokens, head_dim]
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_LAYER_STORE_H_
