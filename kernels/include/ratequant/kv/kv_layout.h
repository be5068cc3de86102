#ifndef RATEQUANT_KV_KV_LAYOUT_H_
#define RATEQUANT_KV_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/quantizer.h"

namespace ratequant::kv {

// Shape of a model's KV cache.
struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int query_heads = 0;  // a multiple of kv_heads; 0: the cache is not asked for
                        // attention
};

// The format of one group.
struct GroupFormat {
  QuantizerSpec quantizer;  // ignored at width 16
  int width = kFp16Width;   // 1..8, or 16
};

// How a cache stores its tokens. Groups are in the order
// (layer * kv_heads + head) * 2 + (V ? 1 : 0).
struct KvCacheConfig {
  KvGeometry geometry;
  std::vector<GroupFormat> groups;  // [layers * kv_heads * 2]
  int page_tokens = 32;
  int sink_tokens = 4;  // first tokens of a sequence, kept in fp16
  int window = 32;      // newest tokens, kept in fp16
  // [groups, head_dim], or empty for none: each group's mean over tokens. It is
  // taken off every row before it is stored, exact rows too, and put back where
  // rows are read. Attention needs no more than its sum of the mean of V: what
  // all keys of a head lack, softmax cancels. Quantizers whose ranges or norms
  // span channels gain most: much of K's energy is in its mean. Finite, at most
  // 65504 in magnitude.
  std::vector<float> means;
};

// Where each group's section lies in its layer's page.
struct LayerLayout {
  std::vector<size_t> section_offset;  // [kv_heads * 2], multiples of 16
  std::vector<SectionLayout> section;  // [kv_heads * 2]
  size_t page_bytes = 0;               // bytes of one page of this layer
};

// How a cache's pages are laid out.
struct KvLayout {
  std::vector<LayerLayout> layers;

  // Bytes of one page over all layers.
  size_t page_bytes() const;
};

// What tells caches apart whose bytes can't be exchanged: the SHA-256, in
// hexadecimal, of the format version and everything in `config` but the number
// of query heads. Engines put it into the key of their prefix caches.
// `config` must have passed ComputeKvLayout.
std::string FormatDigest(const KvCacheConfig& config);

// The layout of every page. INVALID_ARGUMENT names the layer, head and tensor
// and what isn't supported, how many groups the geometry needs when `groups`
// has another number, or which of geometry, sink_tokens and window is out of
// range.
absl::StatusOr<KvLayout> ComputeKvLayout(const KvCacheConfig& config);

// Tokens of a sequence of `length` tokens that are in packed pages: whole
// blocks of `block_tokens` that have left the window.
// block_tokens is 1 for per-token quantizers, group_size for K under kivi.
// Sink tokens count: their place in the page stays empty.
int64_t PackedTokens(const KvCacheConfig& config, int64_t length,
                     int block_tokens);

// Bytes a sequence of `length` tokens occupies: packed pages, whole, for the
// tokens older than the window, and fp16 for sinks and window. This is what
// budgets are counted in:
//   ceil(max(0, length - window) / page_tokens) * page_bytes
//   + min(length, sink_tokens + window) * layers * kv_heads * 2 * head_dim * 2
// kivi K tokens that wait for their group to close aren't counted: at most
// group_size - 1 per group, whatever the length.
int64_t SequenceBytes(const KvCacheConfig& config, const KvLayout& layout,
                      int64_t length);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_KV_LAYOUT_H_
