#include "kernels/cache/paged_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ratequant::kv {
namespace {

absl::Status NoSequence(KvCache::SequenceId id) {
  return absl::NotFoundError(absl::StrCat("no sequence ", id));
}

}  // namespace

PagedCache::PagedCache(const KvCacheConfig& config,
                       const KvCacheOptions& options, KvLayout layout,
                       int max_blocks, std::unique_ptr<CacheBackend> backend)
    : config_(config),
      options_(options),
      layout_(std::move(layout)),
      max_blocks_(max_blocks),
      format_digest_(FormatDigest(config)),
      backend_(std::move(backend)),
      pages_(static_cast<int32_t>(options.num_pages)) {
  for (int layer = 0; layer < config_.geometry.layers; ++layer) {
    places_.push_back(ComputeLayerPlaces(config_, layout_.layers[layer], layer,
                                         options_.max_tokens));
    for (const GroupPlace& place : places_.back().groups) {
      max_block_tokens_ = std::max(max_block_tokens_, place.block_tokens);
    }
  }
}

absl::StatusOr<KvCache::SequenceId> PagedCache::AddSequence() {
  absl::StatusOr<std::shared_ptr<SequenceState>> state = NewSequence();
  if (!state.ok()) return state.status();
  const SequenceId id = (*state)->id;
  Adopt(*std::move(state));
  return id;
}

// An id and a slot that nobody knows yet.
absl::StatusOr<std::shared_ptr<SequenceState>> PagedCache::NewSequence() {
  auto state = std::make_shared<SequenceState>();
  state->lengths.resize(config_.geometry.layers);
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  if (!free_slots_.empty()) {
    state->slot = *free_slots_.begin();
    free_slots_.erase(free_slots_.begin());
  } else if (fresh_slot_ < options_.max_sequences) {
    state->slot = fresh_slot_++;
  } else {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", options_.max_sequences,
                     " sequences that the cache is made for are in use"));
  }
  state->id = next_id_++;
  return state;
}

void PagedCache::Adopt(std::shared_ptr<SequenceState> state) {
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  const SequenceId id = state->id;
  sequences_.emplace(id, std::move(state));
}

void PagedCache::ReturnSlot(int slot) {
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  free_slots_.insert(slot);
}

absl::Status PagedCache::RemoveSequence(SequenceId id, const Execution& on) {
  absl::StatusOr<Used> sequence = Use(id, ScopedUse::Kind::kWrite);
  if (!sequence.ok()) return sequence.status();
  {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    sequences_.erase(id);
  }
  SequenceState& state = *sequence->state;
  state.removed = true;
  pages_.Return(state.blocks);
  const absl::Status status = backend_->ClearSidecars(state.slot, on);
  ReturnSlot(state.slot);
  return status;
}

absl::StatusOr<KvCache::SequenceId> PagedCache::ForkSequence(
    SequenceId parent, int64_t tokens, const Execution& on) {
  absl::StatusOr<Used> from = Use(parent, ScopedUse::Kind::kRead);
  if (!from.ok()) return from.status();
  absl::StatusOr<int32_t> length = WholeLength(*from->state);
  if (!length.ok()) return length.status();
  const SequenceState& old = *from->state;
  SequenceStep shared = {
      .slot = old.slot, .begin = *length, .packed_floor = old.packed_floor};
  // Not those that a prepared step has taken.
  size_t blocks = static_cast<size_t>(PackedBlocks(*length, old.packed_floor));
  if (tokens != *length) {
    const int packed =
        PackedEnd(*length, config_.window, max_block_tokens_, old.packed_floor);
    const int most = packed - packed % config_.page_tokens;
    if (tokens % config_.page_tokens != 0 || tokens < config_.sink_tokens ||
        tokens < 1 || tokens > most) {
      return absl::InvalidArgumentError(absl::StrCat(
          "can't fork the first ", tokens, " tokens of sequence ", parent,
          ": supported are all of its ", *length, " tokens, and multiples of ",
          config_.page_tokens, " from ", std::max(1, config_.sink_tokens),
          " to ", most));
    }
    shared.begin = shared.packed_floor = static_cast<int32_t>(tokens);
    blocks = static_cast<size_t>(tokens / config_.page_tokens);
  }
  absl::StatusOr<std::shared_ptr<SequenceState>> made = NewSequence();
  if (!made.ok()) return made.status();
  SequenceState& state = **made;
  state.packed_floor = shared.packed_floor;
  std::fill(state.lengths.begin(), state.lengths.end(), shared.begin);
  state.blocks.assign(old.blocks.begin(), old.blocks.begin() + blocks);
  absl::Status status = backend_->SetBlocks(state.slot, 0, state.blocks, on);
  if (status.ok()) status = backend_->CopySidecars(shared, state.slot, on);
  if (!status.ok()) {
    ReturnSlot(state.slot);
    return status;
  }
  pages_.Share(state.blocks);
  const SequenceId id = state.id;
  Adopt(*std::move(made));
  return id;
}

absl::Status PagedCache::TruncateSequence(SequenceId id, int64_t tokens) {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kWrite);
  if (!used.ok()) return used.status();
  SequenceState& state = *used->state;
  absl::StatusOr<int32_t> length = WholeLength(state);
  if (!length.ok()) return length.status();
  // Blocks of one token: of a whole kivi block no group has packed more.
  const int32_t packed =
      PackedEnd(*length, config_.window, 1, state.packed_floor);
  if (tokens < packed || tokens > *length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "can't truncate sequence ", id, " to ", tokens, " tokens: ", packed,
        " of its ", *length, " have left the window; supported are ", packed,
        " to ", *length));
  }
  if (tokens == *length) return absl::OkStatus();
  state.packed_floor = packed;
  std::fill(state.lengths.begin(), state.lengths.end(),
            static_cast<int32_t>(tokens));
  return absl::OkStatus();
}

absl::StatusOr<PagedCache::Used> PagedCache::Use(SequenceId id,
                                                 ScopedUse::Kind kind) const {
  std::shared_ptr<SequenceState> state;
  {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto it = sequences_.find(id);
    if (it == sequences_.end()) return NoSequence(id);
    state = it->second;
  }
  return Use(std::move(state), kind);
}

// The state may have been found before the sequence was removed: a batch keeps
// it for as long as it likes.
absl::StatusOr<PagedCache::Used> PagedCache::Use(
    std::shared_ptr<SequenceState> state, ScopedUse::Kind kind) {
  ScopedUse use(state.get(), kind);
  if (!use) {
    return absl::FailedPreconditionError(
        absl::StrCat("sequence ", state->id,
                     " is in use by another call; calls on one sequence must "
                     "not overlap unless all of them only read"));
  }
  if (state->removed) return NoSequence(state->id);
  return Used{std::move(state), std::move(use)};
}

absl::Status PagedCache::CheckLayer(int layer) const {
  if (layer >= 0 && layer < config_.geometry.layers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "layer ", layer, " is not in 0 to ", config_.geometry.layers - 1));
}

absl::StatusOr<int32_t> PagedCache::WholeLength(
    const SequenceState& state) const {
  const auto [low, high] =
      std::minmax_element(state.lengths.begin(), state.lengths.end());
  if (*low == *high) return *low;
  return absl::FailedPreconditionError(
      absl::StrCat("the layers of sequence ", state.id, " have ", *low, " to ",
                   *high, " tokens; all must have the same number"));
}

absl::StatusOr<int64_t> PagedCache::Length(SequenceId id, int layer) const {
  absl::StatusOr<Used> sequence = Use(id, ScopedUse::Kind::kRead);
  if (!sequence.ok()) return sequence.status();
  absl::Status status = CheckLayer(layer);
  if (!status.ok()) return status;
  return sequence->state->lengths[layer];
}

absl::Status PagedCache::CheckPages(const SequenceState& state, int64_t first,
                                    int64_t count) const {
  const int64_t pages = static_cast<int64_t>(state.blocks.size());
  if (first >= 0 && count >= 0 && first <= pages - count) {
    return absl::OkStatus();
  }
  return absl::OutOfRangeError(absl::StrCat("pages [", first, ", ", first,
                                            " + ", count, ") of sequence ",
                                            state.id, ", which has ", pages));
}

absl::StatusOr<absl::Span<const uint8_t>> PagedCache::Section(
    SequenceId id, int layer, int group, int64_t page) const {
  absl::StatusOr<Used> sequence = Use(id, ScopedUse::Kind::kRead);
  if (!sequence.ok()) return sequence.status();
  absl::Status status = CheckLayer(layer);
  if (!status.ok()) return status;
  const int groups = config_.geometry.kv_heads * 2;
  if (group < 0 || group >= groups) {
    return absl::InvalidArgumentError(
        absl::StrCat("group ", group, " is not in 0 to ", groups - 1));
  }
  const SequenceState& state = *sequence->state;
  status = CheckPages(state, page, 1);
  if (!status.ok()) return status;
  const uint8_t* const data = backend_->HostPage(layer, state.blocks[page]);
  if (data == nullptr) {
    return absl::UnimplementedError(
        "pages can be looked at on the CPU alone; copy them out");
  }
  const LayerLayout& of_layer = layout_.layers[layer];
  return absl::MakeConstSpan(data + of_layer.section_offset[group],
                             of_layer.section[group].section_bytes);
}

absl::StatusOr<int64_t> PagedCache::AllocatedBytes(SequenceId id) const {
  absl::StatusOr<Used> sequence = Use(id, ScopedUse::Kind::kRead);
  if (!sequence.ok()) return sequence.status();
  const SequenceState& state = *sequence->state;
  const int64_t row_bytes = int64_t{2} * config_.geometry.head_dim;
  int64_t bytes = static_cast<int64_t>(state.blocks.size()) *
                  static_cast<int64_t>(layout_.page_bytes());
  for (size_t layer = 0; layer < places_.size(); ++layer) {
    for (const GroupPlace& place : places_[layer].groups) {
      bytes += row_bytes * UsedSidecarRows(place, config_.sink_tokens,
                                           state.lengths[layer]);
    }
  }
  return bytes;
}

int64_t PagedCache::ReservedBytes() const { return backend_->ReservedBytes(); }

int64_t PagedCache::FreePages() const { return pages_.FreePages(); }

int64_t PagedCache::FreePageBytes() const {
  return pages_.DirtyFreePages() * static_cast<int64_t>(layout_.page_bytes());
}

void PagedCache::ReleaseFreePages() {
  if (!backend_->gives_memory_back()) return;
  const std::vector<int32_t> pages = pages_.WithdrawDirty();
  backend_->ReleasePages(pages);
  pages_.Restore(pages);
}

}  // namespace ratequant::kv
