#ifndef RATEQUANT_KERNELS_CACHE_PAGED_CACHE_H_
#define RATEQUANT_KERNELS_CACHE_PAGED_CACHE_H_

#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cache/cache_backend.h"
#include "kernels/cache/head_checks.h"
#include "kernels/cache/layer_places.h"
#include "kernels/cache/page_allocator.h"
#include "kernels/cache/sequence_state.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {

class PagedBatch;
struct SavedHeader;

// A block of a sequence that gets a page of its own, a copy of `source`; -1: a
// new block behind the others, zeros.
struct BlockChange {
  SequenceState* sequence = nullptr;
  int block = 0;
  int32_t source = -1;
};

// The cache's books: which sequence has which slot and pages, and how long it
// is. Bytes are the backend's.
class PagedCache final : public KvCache {
 public:
  // `options` without zeros; `max_blocks` is of one sequence.
  PagedCache(const KvCacheConfig& config, const KvCacheOptions& options,
             KvLayout layout, int max_blocks,
             std::unique_ptr<CacheBackend> backend);

  const KvCacheConfig& config() const override { return config_; }
  const KvCacheOptions& options() const override { return options_; }
  const KvLayout& layout() const override { return layout_; }

  // Sequences: paged_cache.cc.
  absl::StatusOr<SequenceId> AddSequence() override;
  absl::StatusOr<SequenceId> ForkSequence(SequenceId parent, int64_t tokens,
                                          const Execution& on) override;
  absl::Status TruncateSequence(SequenceId id, int64_t tokens) override;
  absl::Status RemoveSequence(SequenceId id, const Execution& on) override;
  absl::StatusOr<int64_t> Length(SequenceId id, int layer) const override;
  absl::StatusOr<absl::Span<const uint8_t>> Section(
      SequenceId id, int layer, int group, int64_t page) const override;
  absl::StatusOr<int64_t> AllocatedBytes(SequenceId id) const override;
  int64_t ReservedBytes() const override;
  int64_t FreePages() const override;
  int64_t FreePageBytes() const override;
  void ReleaseFreePages() override;

  // Steps: cache_steps.cc.
  absl::StatusOr<std::unique_ptr<KvBatch>> MakeBatch(
      int max_entries, int max_tokens) const override;
  absl::Status Prepare(absl::Span<const BatchEntry> entries, KvBatch& batch,
                       const Execution& on) override;
  absl::Status Append(const KvBatch& batch, int layer, const ConstHeads& keys,
                      const ConstHeads& values, const Execution& on) override;
  absl::Status Attend(const KvBatch& batch, int layer,
                      const AttentionParams& params, const ConstHeads& queries,
                      const MutableHeads& out, const Execution& on) override;
  absl::Status MarkAppended(const KvBatch& batch) override;
  absl::Status Append(SequenceId id, int layer, int64_t tokens,
                      const ConstHeads& keys, const ConstHeads& values,
                      const Execution& on) override;
  absl::Status Gather(SequenceId id, int layer, int64_t first, int64_t count,
                      const MutableHeads& keys, const MutableHeads& values,
                      const Execution& on) const override;
  absl::Status CheckFaults(const Execution& on) override;

  // Pages out and in: cache_copies.cc.
  absl::StatusOr<int64_t> SavedBytes(SequenceId id) const override;
  absl::Status SaveSequence(SequenceId id, absl::Span<uint8_t> out,
                            const Execution& on) const override;
  absl::StatusOr<SequenceId> LoadSequence(absl::Span<const uint8_t> saved,
                                          const Execution& on) override;
  absl::Status CopyPagesOut(SequenceId id, int layer, int64_t first,
                            int64_t count, absl::Span<uint8_t> out,
                            const Execution& on) const override;
  absl::Status CopyPagesIn(SequenceId id, int layer, int64_t first,
                           int64_t count, absl::Span<const uint8_t> in,
                           const Execution& on) override;

 private:
  // A sequence that a call uses.
  struct Used {
    std::shared_ptr<SequenceState> state;
    ScopedUse use;
  };

  absl::StatusOr<Used> Use(SequenceId id, ScopedUse::Kind kind) const;
  static absl::StatusOr<Used> Use(std::shared_ptr<SequenceState> state,
                                  ScopedUse::Kind kind);
  // Uses of all of a step's sequences, let go together.
  static absl::StatusOr<std::vector<Used>> UseAll(const PagedBatch& step,
                                                  ScopedUse::Kind kind);
  absl::Status CheckLayer(int layer) const;
  HeadsShape KvShape(absl::string_view name, int64_t rows) const;
  // The length of all layers. FAILED_PRECONDITION when they differ.
  absl::StatusOr<int32_t> WholeLength(const SequenceState& state) const;
  absl::StatusOr<std::shared_ptr<SequenceState>> NewSequence();
  void Adopt(std::shared_ptr<SequenceState> state);
  void ReturnSlot(int slot);

  // Pages: cache_pages.cc.

  // Blocks [first, end) of a sequence that a step writes to. Those that other
  // sequences share are copied, those that aren't there are new.
  struct WrittenBlocks {
    int first = 0;
    int end = 0;
  };
  WrittenBlocks BlocksOf(const SequenceStep& step) const;
  // Pages that a sequence of `length` tokens has.
  int64_t PackedBlocks(int32_t length, int32_t packed_floor) const;
  // Takes the pages that `steps` need, for the sequences beside them.
  absl::Status TakePages(absl::Span<SequenceState* const> states,
                         absl::Span<const SequenceStep> steps,
                         const Execution& on);
  // Gives sequences other pages: all of them or, on an error, none.
  absl::Status ChangeBlocks(absl::Span<const BlockChange> changes,
                            const Execution& on);
  absl::Status CheckCapacity(const SequenceState& state, int64_t begin,
                             int64_t tokens) const;
  absl::Status AppendWhole(int layer, const SequenceStep& whole,
                           const ConstHeads& keys, const ConstHeads& values,
                           const Execution& on);
  absl::StatusOr<std::unique_ptr<BackendBatch>> TakeSingle();
  void KeepSingle(std::unique_ptr<BackendBatch> single);
  absl::Status CheckAttention(const PagedBatch& batch,
                              const AttentionParams& params) const;
  absl::Status BadValueError(const BadCacheValue& bad, int layer,
                             const SequenceState& state, int begin) const;
  absl::StatusOr<const PagedBatch*> Prepared(const KvBatch& batch) const;
  int64_t SavedBytesOf(const SequenceState& state, int32_t length) const;
  template <typename Page, typename Rows>
  absl::Status VisitSaved(const SequenceState& state, int32_t length,
                          const Page& page, const Rows& rows) const;
  // Makes a new sequence what was saved.
  absl::Status Fill(const SavedHeader& header, absl::Span<const uint8_t> saved,
                    SequenceState& state, const Execution& on);
  absl::Status CheckCopy(const SequenceState& state, int layer, int64_t first,
                         int64_t count, size_t bytes) const;
  absl::Status CheckPages(const SequenceState& state, int64_t first,
                          int64_t count) const;

  const KvCacheConfig config_;
  const KvCacheOptions options_;
  const KvLayout layout_;
  const int max_blocks_;
  std::vector<LayerPlaces> places_;  // [layers]
  int max_block_tokens_ = 1;
  const std::string format_digest_;
  const std::unique_ptr<CacheBackend> backend_;
  PageAllocator pages_;

  mutable std::shared_mutex mutex_;  // guards what follows
  std::unordered_map<SequenceId, std::shared_ptr<SequenceState>> sequences_;
  std::set<int> free_slots_;
  int fresh_slot_ = 0;  // slots from here on were never used
  SequenceId next_id_ = 1;

  // Batches of one entry for appends without a batch, kept for the next one.
  std::mutex singles_mutex_;
  std::vector<std::unique_ptr<BackendBatch>> singles_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_PAGED_CACHE_H_
