#ifndef RATEQUANT_KV_KV_CACHE_H_
#define RATEQUANT_KV_KV_CACHE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/heads.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// A KV cache in mixed precision: for each sequence and layer packed pages of
// the older tokens, and fp16 for the sinks and the window. A token leaves the
// window when it is no longer among the newest `window`; it is quantized then,
// under kivi K together with its whole group.
//
// Every value is rounded to fp16 on its way in, whatever its dtype, and
// quantized from there. So the bytes depend on the tokens alone, not on the
// pieces they were appended in.
//
// Pages are `page_tokens` positions of one layer, page p for the positions
// [p * page_tokens, (p + 1) * page_tokens). They are taken one at a time from a
// pool that all sequences share, and go back to it with the sequence.
//
// Thread-compatible per sequence: calls on different sequences, AddSequence
// among them, may run at the same time; calls on one sequence may not, unless
// all of them are const. Errors leave the cache as it was.
class KvCache {
 public:
  using SequenceId = int64_t;

  // Same errors as ComputeKvLayout.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(
      const KvCacheConfig& config, Backend backend = Backend::kSimd);

  virtual ~KvCache() = default;

  virtual const KvCacheConfig& config() const = 0;
  virtual const KvLayout& layout() const = 0;

  // A new, empty sequence. Ids start at 1 and are never used again.
  virtual SequenceId AddSequence() = 0;

  // Frees a sequence; its pages go back to the pool. NOT_FOUND for an unknown
  // id.
  virtual absl::Status RemoveSequence(SequenceId id) = 0;

  // Appends `tokens` rows, 0 or more, to one layer; the layer's length grows by
  // that. Layers may be appended one after the other; each has its own length.
  // NOT_FOUND for an unknown id; INVALID_ARGUMENT for a layer out of range, a
  // negative count, a null pointer, a dtype or stride that isn't supported;
  // DATA_LOSS for a NaN, an Inf or a magnitude above 65504 (fp16's largest),
  // naming layer, head, K or V, token and channel; RESOURCE_EXHAUSTED when
  // memory runs out.
  virtual absl::Status Append(SequenceId id, int layer, int64_t tokens,
                              const ConstHeads& keys,
                              const ConstHeads& values) = 0;

  // Reads tokens [first, first + count) of one layer back, dequantized where
  // they are packed. Same errors as Append, and OUT_OF_RANGE when the layer has
  // fewer tokens; the outputs are untouched then.
  virtual absl::Status Gather(SequenceId id, int layer, int64_t first,
                              int64_t count, const MutableHeads& keys,
                              const MutableHeads& values) const = 0;

  // The packed bytes of page `page` of group `group` (head * 2, + 1 for V) of
  // one layer, a section as kernels/FORMAT.md has it; rows not packed yet are
  // zero. Valid until the sequence's next Append or its removal. NOT_FOUND,
  // INVALID_ARGUMENT for a layer or group, OUT_OF_RANGE for a page that doesn't
  // exist.
  virtual absl::StatusOr<absl::Span<const uint8_t>> Section(
      SequenceId id, int layer, int group, int64_t page) const = 0;

  // Tokens appended to `layer`.
  virtual absl::StatusOr<int64_t> Length(SequenceId id, int layer) const = 0;

  // Bytes really allocated for a sequence: pages, sinks, window and room for
  // the tokens that wait for their group to close. At least SequenceBytes, and
  // from sink_tokens + window + page_tokens tokens on at most
  // (group_size - 1) * head_dim * 2 bytes more for each kivi K group.
  virtual absl::StatusOr<int64_t> AllocatedBytes(SequenceId id) const = 0;

  // Bytes of pages that belong to no sequence and wait to be used again.
  virtual int64_t FreePageBytes() const = 0;

  // Gives the pages counted by FreePageBytes back to the system.
  virtual void ReleaseFreePages() = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_KV_CACHE_H_
