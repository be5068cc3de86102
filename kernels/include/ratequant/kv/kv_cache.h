#ifndef RATEQUANT_KV_KV_CACHE_H_
#define RATEQUANT_KV_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/device.h"
#include "ratequant/kv/execution.h"
#include "ratequant/kv/heads.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// How much a cache holds. All of it is reserved at creation: on a GPU as device
// memory, on the CPU as address space, which costs memory once it is used.
struct KvCacheOptions {
  Device device = {};
  // Pages that all sequences share, each of page_tokens positions over all
  // layers. 0, on the CPU alone: as many as the machine's memory holds.
  int64_t num_pages = 0;
  int max_sequences = 256;
  // Tokens of the longest sequence. 0: as many as the pages and a window hold.
  int64_t max_tokens = 0;
  Backend backend = Backend::kSimd;  // CPU
};

// A step's part of one sequence.
struct BatchEntry {
  int64_t sequence = 0;
  int32_t tokens = 0;  // 1 or more
};

// Sequences that take a step together: what KvCache::Prepare writes and Append
// and Attend read. Belongs to the cache that made it and may be used for step
// after step; on a GPU its memory stays where it is, so that a captured graph
// can be replayed after every Prepare. Calls with one batch must not overlap;
// it must not outlive its cache.
class KvBatch {
 public:
  virtual ~KvBatch() = default;

  // Rows of the prepared step's tensors: the sum of its entries' tokens.
  virtual int64_t rows() const = 0;
};

// A paged KV cache in mixed precision. Tokens that have left the window are in
// packed pages, kernels/FORMAT.md; sinks and the newest `window` tokens are in
// fp16. A token leaves the window when it is no longer among the newest
// `window`; K under kivi is quantized by whole groups of tokens.
//
// Every value is rounded to fp16 on its way in, whatever its dtype, and
// quantized from there. So the bytes depend on the tokens alone, not on the
// pieces they were appended in, nor on the device.
//
// Page p of a sequence holds positions [p * page_tokens, (p + 1) *
// page_tokens) of all layers. Forked sequences share pages until one of them
// writes to one: it gets a copy of its own then.
//
// A step is: Prepare takes the pages that it needs; then, layer by layer,
// Append stores its tokens and Attend reads everything. Prepare is the only one
// of the three that can run out of pages. Single sequences can be appended to
// without a batch.
//
// On a GPU all operations are in order with the caller's stream and return
// before they are done. After creation none of them allocates device memory or
// waits. Tensors are device memory there, and values that can't be stored are
// found on the device: see CheckFaults.
//
// Thread-compatible per sequence: calls on different sequences, AddSequence
// among them, may run at the same time, on a GPU in order on one stream; calls
// on one sequence may not, unless all of them only read. A call that meets
// another is FAILED_PRECONDITION. Errors leave the cache as it was.
class KvCache {
 public:
  // A sequence of this cache; from 1.
  using SequenceId = int64_t;

  // The errors of ComputeKvLayout; INVALID_ARGUMENT for options that aren't
  // supported; FAILED_PRECONDITION for a device that isn't there, saying what
  // was found; RESOURCE_EXHAUSTED when memory can't be reserved.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(
      const KvCacheConfig& config, const KvCacheOptions& options = {});

  virtual ~KvCache() = default;

  // What the cache was made with.
  virtual const KvCacheConfig& config() const = 0;
  virtual const KvCacheOptions& options() const = 0;  // without zeros
  // How its pages are laid out.
  virtual const KvLayout& layout() const = 0;

  // --- Sequences ---

  // A new, empty sequence. Ids start at 1 and are never used again.
  // RESOURCE_EXHAUSTED when there are max_sequences.
  virtual absl::StatusOr<SequenceId> AddSequence() = 0;

  // A new sequence with the first `tokens` tokens of another, whose pages it
  // shares. `tokens` is the parent's length, or a prefix in whole pages that
  // holds the sinks and that the parent has packed; such a prefix is packed in
  // the new sequence as well, its newest tokens too. NOT_FOUND;
  // RESOURCE_EXHAUSTED when there are max_sequences; INVALID_ARGUMENT says
  // which prefixes can be had; FAILED_PRECONDITION when the parent's layers
  // have different lengths.
  virtual absl::StatusOr<SequenceId> ForkSequence(SequenceId parent,
                                                  int64_t tokens,
                                                  const Execution& on = {}) = 0;

  // Drops a sequence's newest tokens, so that `tokens` are left: a rejected
  // draft's are taken back. Nothing is quantized anew: tokens that had left the
  // window stay packed, and it fills with what comes next. So `tokens` is at
  // least what has left the window, at most the length. NOT_FOUND;
  // INVALID_ARGUMENT says which lengths can be had; FAILED_PRECONDITION when
  // the layers have different lengths.
  virtual absl::Status TruncateSequence(SequenceId id, int64_t tokens) = 0;

  // Frees a sequence; pages that no other shares go back to the pool.
  // NOT_FOUND for an unknown id.
  virtual absl::Status RemoveSequence(SequenceId id,
                                      const Execution& on = {}) = 0;

  // Tokens appended to `layer`.
  virtual absl::StatusOr<int64_t> Length(SequenceId id, int layer) const = 0;

  // --- Steps ---

  // A batch for steps of up to `max_entries` sequences with up to `max_tokens`
  // tokens each. INVALID_ARGUMENT for a limit below 1; RESOURCE_EXHAUSTED when
  // memory runs out.
  virtual absl::StatusOr<std::unique_ptr<KvBatch>> MakeBatch(
      int max_entries, int max_tokens) const = 0;

  // Prepares a step: entry i adds its tokens to its sequence, rows in the
  // entries' order. Replaces what was prepared before. NOT_FOUND;
  // INVALID_ARGUMENT for more entries or tokens than the batch is made for, or
  // a sequence twice; FAILED_PRECONDITION for a sequence whose layers have
  // different lengths; RESOURCE_EXHAUSTED when there aren't enough free pages,
  // or a sequence would get above max_tokens: nothing is taken then.
  virtual absl::Status Prepare(absl::Span<const BatchEntry> entries,
                               KvBatch& batch, const Execution& on = {}) = 0;

  // Appends the step's tokens to one layer; keys and values are [kv_heads,
  // rows(), head_dim]. FAILED_PRECONDITION when nothing is prepared, the
  // layer has it already, or a sequence was forked since; NOT_FOUND when one of
  // its sequences was removed since; INVALID_ARGUMENT for a layer out of range,
  // a null pointer, a dtype, stride or alignment that isn't supported;
  // DATA_LOSS (on the CPU) for a NaN, an Inf or a magnitude above 65504 (fp16's
  // largest), naming sequence, layer, head, K or V, token and channel.
  virtual absl::Status Append(const KvBatch& batch, int layer,
                              const ConstHeads& keys, const ConstHeads& values,
                              const Execution& on = {}) = 0;

  // Decode attention of the step's tokens, after Append: queries and out are
  // [query_heads, rows(), head_dim]; params.query_heads is the geometry's. The
  // result is attention over the dequantized cache, computed in fp32. Errors as
  // Append; INVALID_ARGUMENT also for parameters out of range and batches with
  // more than kMaxDecodeQueries tokens an entry.
  virtual absl::Status Attend(const KvBatch& batch, int layer,
                              const AttentionParams& params,
                              const ConstHeads& queries,
                              const MutableHeads& out,
                              const Execution& on = {}) = 0;

  // Sets the lengths of all layers to what the step makes them: after a graph
  // was replayed that holds the step's appends, which the cache doesn't see.
  virtual absl::Status MarkAppended(const KvBatch& batch) = 0;

  // Appends `tokens` rows, 0 or more, to one layer of one sequence, without a
  // batch. Layers may be appended one after the other; each has its own length.
  // Errors as Prepare and Append.
  virtual absl::Status Append(SequenceId id, int layer, int64_t tokens,
                              const ConstHeads& keys, const ConstHeads& values,
                              const Execution& on = {}) = 0;

  // Reads tokens [first, first + count) of one layer back, dequantized where
  // they are packed, in the original basis. A null `data` means that this
  // tensor isn't wanted. Same errors as Append, and OUT_OF_RANGE when the layer
  // has fewer tokens; the outputs are untouched then.
  virtual absl::Status Gather(SequenceId id, int layer, int64_t first,
                              int64_t count, const MutableHeads& keys,
                              const MutableHeads& values,
                              const Execution& on = {}) const = 0;

  // Waits for the stream and returns the first value that couldn't be stored
  // since the last call: DATA_LOSS as in Append. OK on the CPU, where Append
  // says so itself.
  virtual absl::Status CheckFaults(const Execution& on = {}) = 0;

  // --- Pages out and in ---

  // The bytes SaveSequence writes.
  virtual absl::StatusOr<int64_t> SavedBytes(SequenceId id) const = 0;

  // Writes a sequence, with a header that names the format version and the
  // FormatDigest, to host memory of SavedBytes, for another cache of the same
  // format to go on with, on any device. FAILED_PRECONDITION when the
  // sequence's layers have different lengths; INVALID_ARGUMENT for another
  // size. On a GPU the bytes are there when the stream has got there.
  virtual absl::Status SaveSequence(SequenceId id, absl::Span<uint8_t> out,
                                    const Execution& on = {}) const = 0;

  // Makes a sequence of saved bytes. INVALID_ARGUMENT for bytes that
  // SaveSequence didn't write, of another format version or another format,
  // naming both; RESOURCE_EXHAUSTED as in Prepare. On a GPU `saved` must stay
  // until the stream has got there.
  virtual absl::StatusOr<SequenceId> LoadSequence(
      absl::Span<const uint8_t> saved, const Execution& on = {}) = 0;

  // Copies pages [first, first + count) of one layer of a sequence to host
  // memory of count * page_bytes: pages move out of the way. OUT_OF_RANGE for
  // pages that aren't there.
  virtual absl::Status CopyPagesOut(SequenceId id, int layer, int64_t first,
                                    int64_t count, absl::Span<uint8_t> out,
                                    const Execution& on = {}) const = 0;
  // The way back. Needs pages that no other sequence shares
  // (FAILED_PRECONDITION).
  virtual absl::Status CopyPagesIn(SequenceId id, int layer, int64_t first,
                                   int64_t count, absl::Span<const uint8_t> in,
                                   const Execution& on = {}) = 0;

  // --- Memory ---

  // The packed bytes of page `page` of group `group` (head * 2, + 1 for V) of
  // one layer, a section as kernels/FORMAT.md has it; rows not packed yet are
  // zero. Valid until the sequence's next append or its removal. CPU alone
  // (UNIMPLEMENTED else). NOT_FOUND, INVALID_ARGUMENT for a layer or group,
  // OUT_OF_RANGE for a page that doesn't exist.
  virtual absl::StatusOr<absl::Span<const uint8_t>> Section(
      SequenceId id, int layer, int group, int64_t page) const = 0;

  // Bytes that a sequence occupies: its pages, shared ones too, and the fp16
  // rows of sinks, window and tokens that wait for their group to close, as far
  // as they have been used. At least SequenceBytes, and from sink_tokens +
  // window + page_tokens tokens on at most (group_size - 1) * head_dim * 2
  // bytes more for each kivi K group.
  virtual absl::StatusOr<int64_t> AllocatedBytes(SequenceId id) const = 0;

  // Bytes that the cache reserved at creation: pages, fp16 rows and block
  // tables.
  virtual int64_t ReservedBytes() const = 0;

  // Pages that can still be taken.
  virtual int64_t FreePages() const = 0;

  // Bytes of pages that were used, belong to no sequence and still cost memory.
  virtual int64_t FreePageBytes() const = 0;

  // Gives the pages counted by FreePageBytes back to the system, where it takes
  // them (CPU).
  virtual void ReleaseFreePages() = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_KV_CACHE_H_
