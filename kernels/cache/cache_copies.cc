#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cache/paged_cache.h"
#include "kernels/cache/saved_header.h"

namespace ratequant::kv {

int64_t PagedCache::SavedBytesOf(const SequenceState& state,
                                 int32_t length) const {
  int64_t rows = 0;
  for (const LayerPlaces& layer : places_) {
    for (const GroupPlace& place : layer.groups) {
      for (const SidecarRows& live :
           LiveSidecarRows(place, config_, length, state.packed_floor)) {
        rows += live.count;
      }
    }
  }
  return SavedHeader::kBytes +
         PackedBlocks(length, state.packed_floor) *
             static_cast<int64_t>(layout_.page_bytes()) +
         rows * 2 * config_.geometry.head_dim;
}

absl::StatusOr<int64_t> PagedCache::SavedBytes(SequenceId id) const {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kRead);
  if (!used.ok()) return used.status();
  absl::StatusOr<int32_t> length = WholeLength(*used->state);
  if (!length.ok()) return length.status();
  return SavedBytesOf(*used->state, *length);
}

// Calls page(layer, page number, offset in the saved bytes) and row(layer,
// offset in the sidecar, bytes, offset in the saved bytes) for all parts of a
// saved sequence, layer by layer, until one fails.
template <typename Page, typename Rows>
absl::Status PagedCache::VisitSaved(const SequenceState& state, int32_t length,
                                    const Page& page, const Rows& rows) const {
  const int64_t row_bytes = int64_t{2} * config_.geometry.head_dim;
  const int64_t blocks = PackedBlocks(length, state.packed_floor);
  int64_t at = SavedHeader::kBytes;
  for (int layer = 0; layer < config_.geometry.layers; ++layer) {
    for (int64_t b = 0; b < blocks; ++b) {
      absl::Status status = page(layer, state.blocks[b], at);
      if (!status.ok()) return status;
      at += static_cast<int64_t>(layout_.layers[layer].page_bytes);
    }
    for (const GroupPlace& place : places_[layer].groups) {
      for (const SidecarRows& live :
           LiveSidecarRows(place, config_, length, state.packed_floor)) {
        if (live.count == 0) continue;
        absl::Status status =
            rows(layer, place.sidecar_offset + live.row * row_bytes,
                 live.count * row_bytes, at);
        if (!status.ok()) return status;
        at += live.count * row_bytes;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PagedCache::SaveSequence(SequenceId id, absl::Span<uint8_t> out,
                                      const Execution& on) const {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kRead);
  if (!used.ok()) return used.status();
  const SequenceState& state = *used->state;
  absl::StatusOr<int32_t> length = WholeLength(state);
  if (!length.ok()) return length.status();
  const int64_t bytes = SavedBytesOf(state, *length);
  if (static_cast<int64_t>(out.size()) != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", id, " is saved to ", bytes,
                     " bytes, the buffer has ", out.size()));
  }
  WriteSavedHeader({format_digest_, *length, state.packed_floor}, bytes,
                   out.data());
  return VisitSaved(
      state, *length,
      [&](int layer, int32_t page, int64_t at) {
        return backend_->CopyPageOut(layer, page, out.data() + at, on);
      },
      [&](int layer, int64_t offset, int64_t count, int64_t at) {
        return backend_->CopySidecarOut(layer, state.slot, offset, count,
                                        out.data() + at, on);
      });
}

absl::StatusOr<KvCache::SequenceId> PagedCache::LoadSequence(
    absl::Span<const uint8_t> saved, const Execution& on) {
  absl::StatusOr<SavedHeader> header = ReadSavedHeader(saved);
  if (!header.ok()) return header.status();
  if (header->format_digest != format_digest_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a saved sequence of format ", header->format_digest,
                     "; this cache's is ", format_digest_));
  }
  if (header->length < 0 || header->length > kMaxTokens ||
      header->packed_floor < 0 || header->packed_floor > header->length) {
    return absl::InvalidArgumentError(
        absl::StrCat("a saved sequence of ", header->length, " tokens, ",
                     header->packed_floor, " of them packed before"));
  }
  absl::StatusOr<std::shared_ptr<SequenceState>> made = NewSequence();
  if (!made.ok()) return made.status();
  SequenceState& state = **made;
  absl::Status status = Fill(*header, saved, state, on);
  if (!status.ok()) {
    pages_.Return(state.blocks);
    ReturnSlot(state.slot);
    return status;
  }
  const SequenceId id = state.id;
  Adopt(*std::move(made));
  return id;
}

absl::Status PagedCache::Fill(const SavedHeader& header,
                              absl::Span<const uint8_t> saved,
                              SequenceState& state, const Execution& on) {
  const int32_t length = static_cast<int32_t>(header.length);
  state.packed_floor = static_cast<int32_t>(header.packed_floor);
  const int64_t bytes = SavedBytesOf(state, length);
  if (static_cast<int64_t>(saved.size()) != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a saved sequence of ", length, " tokens has ", bytes,
                     " bytes, not ", saved.size()));
  }
  absl::Status status = CheckCapacity(state, 0, length);
  if (!status.ok()) return status;
  std::vector<BlockChange> blocks;
  const int count = static_cast<int>(PackedBlocks(length, state.packed_floor));
  for (int b = 0; b < count; ++b) blocks.push_back({&state, b, -1});
  status = ChangeBlocks(blocks, on);
  if (!status.ok()) return status;
  std::fill(state.lengths.begin(), state.lengths.end(), length);
  return VisitSaved(
      state, length,
      [&](int layer, int32_t page, int64_t at) {
        return backend_->CopyPageIn(layer, page, saved.data() + at, on);
      },
      [&](int layer, int64_t offset, int64_t count, int64_t at) {
        return backend_->CopySidecarIn(layer, state.slot, offset, count,
                                       saved.data() + at, on);
      });
}

absl::Status PagedCache::CopyPagesOut(SequenceId id, int layer, int64_t first,
                                      int64_t count, absl::Span<uint8_t> out,
                                      const Execution& on) const {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kRead);
  if (!used.ok()) return used.status();
  absl::Status status =
      CheckCopy(*used->state, layer, first, count, out.size());
  for (int64_t i = 0; status.ok() && i < count; ++i) {
    status = backend_->CopyPageOut(
        layer, used->state->blocks[first + i],
        out.data() + i * layout_.layers[layer].page_bytes, on);
  }
  return status;
}

absl::Status PagedCache::CopyPagesIn(SequenceId id, int layer, int64_t first,
                                     int64_t count,
                                     absl::Span<const uint8_t> in,
                                     const Execution& on) {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kWrite);
  if (!used.ok()) return used.status();
  const SequenceState& state = *used->state;
  absl::Status status = CheckCopy(state, layer, first, count, in.size());
  for (int64_t i = 0; status.ok() && i < count; ++i) {
    if (pages_.IsShared(state.blocks[first + i])) {
      status = absl::FailedPreconditionError(
          absl::StrCat("page ", first + i, " of sequence ", id,
                       " is shared with another sequence"));
    }
  }
  for (int64_t i = 0; status.ok() && i < count; ++i) {
    status = backend_->CopyPageIn(
        layer, state.blocks[first + i],
        in.data() + i * layout_.layers[layer].page_bytes, on);
  }
  return status;
}

absl::Status PagedCache::CheckCopy(const SequenceState& state, int layer,
                                   int64_t first, int64_t count,
                                   size_t bytes) const {
  absl::Status status = CheckLayer(layer);
  if (status.ok()) status = CheckPages(state, first, count);
  if (!status.ok()) return status;
  const size_t wanted = count * layout_.layers[layer].page_bytes;
  if (bytes == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(count, " pages of layer ", layer, " have ", wanted,
                   " bytes, the buffer has ", bytes));
}

}  // namespace ratequant::kv
