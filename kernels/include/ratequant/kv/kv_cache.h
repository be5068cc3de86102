#ifndef RATEQUANT_KV_KV_CACHE_H_
#define RATEQUANT_KV_KV_CACHE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// A KV cache in mixed precision: for each sequence and layer packed pages of
// the older tokens, and fp16 for the sinks and the window. A token leaves the
// window when it is no longer among the newest `window`; it is quantized then,
// under kivi K together with its whole group.
//
// Thread-compatible: calls on different sequences may run at the same time,
// calls on one sequence may not. Errors leave the cache as it was.
class KvCache {
 public:
  using SequenceId = int64_t;

  // Same errors as ComputeKvLayout.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(
      const KvCacheConfig& config);

  virtual ~KvCache() = default;

  virtual const KvCacheConfig& config() const = 0;
  virtual const KvLayout& layout() const = 0;

  // A new, empty sequence. Ids are never used again.
  virtual SequenceId AddSequence() = 0;

  // Frees a sequence and its pages. NOT_FOUND for an unknown id.
  virtual absl::Status RemoveSequence(SequenceId id) = 0;

  // Appends `tokens` rows to one layer. keys and values:
  // [kv_heads, tokens, head_dim], row-major, with `head_stride` elements from
  // one head to the next. Layers may be appended one after the other; each has
  // its own length. NOT_FOUND for an unknown id; INVALID_ARGUMENT for a layer
  // out of range; DATA_LOSS for a NaN, an Inf or a magnitude above 65504.
  virtual absl::Status Append(SequenceId id, int layer, int64_t tokens,
                              const void* keys, const void* values,
                              int64_t head_stride, DType dtype) = 0;

  // Reads tokens [first, first + count) of one layer back, dequantized where
  // they are packed, into keys and values laid out as for Append. Either
  // pointer may be null.
  virtual absl::Status Gather(SequenceId id, int layer, int64_t first,
                              int64_t count, void* keys, void* values,
                              int64_t head_stride, DType dtype) const = 0;

  // Tokens appended to `layer`.
  virtual absl::StatusOr<int64_t> Length(SequenceId id, int layer) const = 0;

  // Bytes really allocated for a sequence: pages, sinks, window and the tokens
  // that wait for their group to close.
  virtual absl::StatusOr<int64_t> AllocatedBytes(SequenceId id) const = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_KV_CACHE_H_
