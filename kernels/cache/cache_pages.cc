// Which pages a sequence needs, and gets.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cache/paged_cache.h"

namespace ratequant::kv {

absl::Status PagedCache::CheckCapacity(const SequenceState& state,
                                       int64_t begin, int64_t tokens) const {
  if (tokens <= options_.max_tokens - begin) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("sequence ", state.id, " would have ", begin, " + ", tokens,
                   " tokens; the cache is made for ", options_.max_tokens));
}

int64_t PagedCache::PackedBlocks(int32_t length, int32_t packed_floor) const {
  const int packed = PackedEnd(length, config_.window, 1, packed_floor);
  return (packed + config_.page_tokens - 1) / config_.page_tokens;
}

PagedCache::WrittenBlocks PagedCache::BlocksOf(const SequenceStep& step) const {
  const int end = step.begin + step.count;
  if (PackedEnd(end, config_.window, 1, step.packed_floor) ==
      PackedEnd(step.begin, config_.window, 1, step.packed_floor)) {
    return {};
  }
  const int first = PackedEnd(step.begin, config_.window, max_block_tokens_,
                              step.packed_floor);
  return {first / config_.page_tokens,
          static_cast<int>(PackedBlocks(end, step.packed_floor))};
}

absl::Status PagedCache::TakePages(absl::Span<SequenceState* const> states,
                                   absl::Span<const SequenceStep> steps,
                                   const Execution& on) {
  std::vector<BlockChange> changes;
  for (size_t i = 0; i < steps.size(); ++i) {
    const WrittenBlocks written = BlocksOf(steps[i]);
    const std::vector<int32_t>& blocks = states[i]->blocks;
    const int have = static_cast<int>(blocks.size());
    for (int b = written.first; b < std::min(written.end, have); ++b) {
      if (pages_.IsShared(blocks[b])) {
        changes.push_back({states[i], b, blocks[b]});
      }
    }
    for (int b = have; b < written.end; ++b) {
      changes.push_back({states[i], b, -1});
    }
  }
  return ChangeBlocks(changes, on);
}

absl::Status PagedCache::ChangeBlocks(absl::Span<const BlockChange> changes,
                                      const Execution& on) {
  if (changes.empty()) return absl::OkStatus();
  std::vector<PageAllocator::Taken> taken;
  if (!pages_.Take(static_cast<int>(changes.size()), &taken)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        changes.size(), " pages are needed and ", pages_.FreePages(), " of ",
        options_.num_pages, " are free"));
  }
  std::vector<PageEdit> edits;
  for (size_t i = 0; i < changes.size(); ++i) {
    if (changes[i].source < 0 && taken[i].clean) continue;
    edits.push_back({taken[i].page, changes[i].source});
  }
  absl::Status status = backend_->EditPages(edits, on);
  // Neighbouring blocks of a sequence are written together.
  std::vector<int32_t> run;
  for (size_t i = 0; status.ok() && i < changes.size(); ++i) {
    run.push_back(taken[i].page);
    const bool goes_on = i + 1 < changes.size() &&
                         changes[i + 1].sequence == changes[i].sequence &&
                         changes[i + 1].block == changes[i].block + 1;
    if (goes_on) continue;
    status = backend_->SetBlocks(
        changes[i].sequence->slot,
        changes[i].block + 1 - static_cast<int>(run.size()), run, on);
    run.clear();
  }
  if (!status.ok()) {
    for (const PageAllocator::Taken& page : taken) {
      pages_.Return({&page.page, 1});
    }
    return status;
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    std::vector<int32_t>& blocks = changes[i].sequence->blocks;
    if (changes[i].source < 0) {
      blocks.push_back(taken[i].page);
    } else {
      blocks[changes[i].block] = taken[i].page;
      pages_.Return({&changes[i].source, 1});
    }
  }
  return absl::OkStatus();
}

}  // namespace ratequant::kv
