#include "kernels/cache/layer_store.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cache/half_rows.h"

namespace ratequant::kv {
namespace {

ConstRows HeadRows(const ConstHeads& heads, int head) {
  return {static_cast<const uint8_t*>(heads.data) +
              head * heads.head_stride *
                  static_cast<int64_t>(ElementSize(heads.dtype)),
          heads.dtype, heads.row_stride};
}

MutableRows HeadRows(const MutableHeads& heads, int head) {
  return {static_cast<uint8_t*>(heads.data) +
              head * heads.head_stride *
                  static_cast<int64_t>(ElementSize(heads.dtype)),
          heads.dtype, heads.row_stride};
}

std::string GroupName(int layer, int group) {
  return absl::StrCat("layer ", layer, ", head ", group / 2, ", ",
                      group % 2 == 0 ? "K" : "V");
}

absl::Status OutOfMemory(int64_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for ", bytes, " bytes of KV cache"));
}

}  // namespace

// An append on its way: everything that can fail is prepared here, and what the
// store reads stays as it was until Commit.
struct LayerStore::Change {
  int64_t new_length = 0;
  std::vector<ConstRows> input;       // [groups], row 0 is position length_
  std::vector<Page> pages;            // to go behind pages_
  std::vector<TokenRing> rings;       // [groups]; empty where the old one does
  std::unique_ptr<uint16_t[]> sinks;  // only for the first tokens
  std::vector<uint16_t> scratch;      // [page_tokens, head_dim]
};

int64_t LayerStore::Packed(int group, int64_t length) const {
  return PackedTokens(*plan_->config, length,
                      plan_->codecs[group]->token_granule());
}

int64_t LayerStore::RingBegin(int group, int64_t length) const {
  return std::max<int64_t>(plan_->config->sink_tokens, Packed(group, length));
}

int64_t LayerStore::AllocatedBytes() const {
  int64_t bytes = static_cast<int64_t>(pages_.size()) *
                  static_cast<int64_t>(plan_->layout->page_bytes);
  for (const TokenRing& ring : rings_) bytes += ring.bytes();
  if (sinks_ != nullptr) {
    bytes += int64_t{2} * groups() * plan_->config->sink_tokens * head_dim();
  }
  return bytes;
}

absl::Status LayerStore::Append(int64_t tokens, const ConstHeads& keys,
                                const ConstHeads& values) {
  Change change;
  change.new_length = length_ + tokens;
  for (int g = 0; g < groups(); ++g) {
    change.input.push_back(HeadRows(g % 2 == 0 ? keys : values, g / 2));
  }
  absl::Status status = CheckValues(change);
  if (status.ok()) status = Allocate(change);
  for (int g = 0; status.ok() && g < groups(); ++g) status = Encode(g, change);
  if (status.ok()) Commit(change);
  return status;
}

absl::Status LayerStore::CheckValues(const Change& change) const {
  for (int g = 0; g < groups(); ++g) {
    const BadValue bad =
        FindBadValue(change.input[g], change.new_length - length_, head_dim());
    if (bad.row < 0) continue;
    return absl::DataLossError(absl::StrCat(
        GroupName(plan_->layer, g), ", token ", length_ + bad.row, ", channel ",
        bad.channel, ": ", bad.value,
        " can't be stored; values are finite and at most 65504 in magnitude"));
  }
  return absl::OkStatus();
}

absl::Status LayerStore::Allocate(Change& change) const {
  const int64_t page_tokens = plan_->config->page_tokens;
  const int64_t packed = PackedTokens(*plan_->config, change.new_length, 1);
  const size_t pages = (packed + page_tokens - 1) / page_tokens;
  while (pages_.size() + change.pages.size() < pages) {
    change.pages.push_back(plan_->pool.Take());
    if (!change.pages.back()) return OutOfMemory(plan_->layout->page_bytes);
  }
  const int64_t sinks =
      int64_t{groups()} * plan_->config->sink_tokens * head_dim();
  if (sinks_ == nullptr && sinks > 0) {
    change.sinks.reset(new (std::nothrow) uint16_t[sinks]);
    if (change.sinks == nullptr) return OutOfMemory(2 * sinks);
  }
  change.rings.resize(groups());
  for (int g = 0; g < groups(); ++g) {
    absl::Status status = AllocateRing(g, change);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status LayerStore::AllocateRing(int group, Change& change) const {
  const int64_t needed =
      change.new_length - RingBegin(group, change.new_length);
  const int64_t have = rings_.empty() ? 0 : rings_[group].capacity();
  if (needed <= have) return absl::OkStatus();
  // Doubles up to what the group can ever need: a large window costs what is in
  // it, not what fits in it.
  const int64_t most = int64_t{plan_->config->window} +
                       plan_->codecs[group]->token_granule() - 1;
  const int64_t capacity =
      std::min(most, std::max({needed, 2 * have, int64_t{16}}));
  if (change.rings[group].Allocate(capacity, head_dim())) {
    return absl::OkStatus();
  }
  return OutOfMemory(2 * capacity * head_dim());
}

absl::Status LayerStore::Encode(int group, Change& change) {
  const Codec& codec = *plan_->codecs[group];
  const int64_t page_tokens = plan_->config->page_tokens;
  const int64_t sinks = plan_->config->sink_tokens;
  const int64_t end = Packed(group, change.new_length);
  // Blocks of nothing but sinks stay zero, as the codec would leave them.
  int64_t first =
      std::max(Packed(group, length_), sinks - sinks % codec.token_granule());
  while (first < end) {
    const int64_t page = first / page_tokens;
    const int64_t begin = page * page_tokens;
    const int64_t count = std::min(end, begin + page_tokens) - first;
    const int64_t old_pages = static_cast<int64_t>(pages_.size());
    Page& target =
        page < old_pages ? pages_[page] : change.pages[page - old_pages];
    absl::Status status = codec.Encode(
        RowsToEncode(group, first, count, change),
        static_cast<int>(first - begin), static_cast<int>(count),
        static_cast<int>(std::clamp<int64_t>(sinks - begin, 0, page_tokens)),
        absl::MakeSpan(target.data() + plan_->layout->section_offset[group],
                       codec.layout().section_bytes));
    if (!status.ok()) return Annotate(group, status);
    first += count;
  }
  return absl::OkStatus();
}

// Positions [first, first + count) in fp16: where they lie, if they lie there
// one after the other in fp16 already, else in the scratch buffer.
ConstRows LayerStore::RowsToEncode(int group, int64_t first, int64_t count,
                                   Change& change) const {
  const ConstRows& input = change.input[group];
  if (first >= length_ && input.dtype == DType::kFloat16) {
    return RowsFrom(input, first - length_);
  }
  const int dim = head_dim();
  const int64_t end = first + count;
  const int64_t sinks_end = std::min<int64_t>(end, plan_->config->sink_tokens);
  if (first >= sinks_end && end <= length_) {
    const uint16_t* rows = rings_[group].Contiguous(first, count);
    if (rows != nullptr) return {rows, DType::kFloat16, dim};
  }
  change.scratch.resize(size_t{1} * plan_->config->page_tokens * dim);
  uint16_t* scratch = change.scratch.data();
  const int64_t ring_begin = std::max(first, sinks_end);
  const int64_t ring_end = std::clamp(length_, ring_begin, end);
  // Sinks aren't encoded: what stands in their rows doesn't matter.
  if (ring_end > ring_begin) {
    rings_[group].Read(
        ring_begin, ring_end - ring_begin,
        {scratch + (ring_begin - first) * dim, DType::kFloat16, dim});
  }
  if (end > ring_end) {
    RowsToHalf(RowsFrom(input, ring_end - length_), end - ring_end, dim,
               scratch + (ring_end - first) * dim);
  }
  return {scratch, DType::kFloat16, dim};
}

void LayerStore::Commit(Change& change) {
  std::move(change.pages.begin(), change.pages.end(),
            std::back_inserter(pages_));
  if (change.sinks != nullptr) sinks_ = std::move(change.sinks);
  if (rings_.empty()) rings_.resize(groups());
  for (int g = 0; g < groups(); ++g) CommitGroup(g, change);
  length_ = change.new_length;
}

void LayerStore::CommitGroup(int group, Change& change) {
  const ConstRows& input = change.input[group];
  const int64_t sinks = plan_->config->sink_tokens;
  if (length_ < sinks) {
    RowsToHalf(input, std::min(sinks, change.new_length) - length_, head_dim(),
               sinks_.get() + (group * sinks + length_) * head_dim());
  }
  TokenRing& ring = rings_[group];
  const int64_t begin = RingBegin(group, change.new_length);
  if (change.rings[group].capacity() > 0) {
    TokenRing grown = std::move(change.rings[group]);
    if (begin < length_) grown.CopyFrom(ring, begin, length_ - begin);
    ring = std::move(grown);
  }
  const int64_t first = std::max(begin, length_);
  if (first < change.new_length) {
    ring.Write(first, change.new_length - first,
               RowsFrom(input, first - length_));
  }
}

absl::Status LayerStore::Gather(int64_t first, int64_t count,
                                const MutableHeads& keys,
                                const MutableHeads& values) const {
  for (int g = 0; g < groups(); ++g) {
    const MutableHeads& heads = g % 2 == 0 ? keys : values;
    if (heads.data == nullptr) continue;
    absl::Status status = GatherGroup(g, first, count, HeadRows(heads, g / 2));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status LayerStore::GatherGroup(int group, int64_t first, int64_t count,
                                     const MutableRows& out) const {
  const int64_t end = first + count;
  const int64_t sinks = plan_->config->sink_tokens;
  const int64_t sinks_end = std::clamp(sinks, first, end);
  const int64_t ring_begin =
      std::clamp(RingBegin(group, length_), sinks_end, end);
  if (first < sinks_end) {
    HalfToRows(sinks_.get() + (group * sinks + first) * head_dim(),
               sinks_end - first, head_dim(), out);
  }
  absl::Status status = DecodePages(group, sinks_end, ring_begin - sinks_end,
                                    RowsFrom(out, sinks_end - first));
  if (!status.ok()) return status;
  if (ring_begin < end) {
    rings_[group].Read(ring_begin, end - ring_begin,
                       RowsFrom(out, ring_begin - first));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const uint8_t>> LayerStore::Section(
    int group, int64_t page) const {
  if (group < 0 || group >= groups()) {
    return absl::InvalidArgumentError(
        absl::StrCat("group ", group, " is not in 0 to ", groups() - 1));
  }
  const int64_t pages = static_cast<int64_t>(pages_.size());
  if (page < 0 || page >= pages) {
    return absl::OutOfRangeError(absl::StrCat(
        "page ", page, " of layer ", plan_->layer, ", which has ", pages));
  }
  return SectionOf(pages_[page], group);
}

absl::Span<const uint8_t> LayerStore::SectionOf(const Page& page,
                                                int group) const {
  return absl::MakeConstSpan(page.data() + plan_->layout->section_offset[group],
                             plan_->layout->section[group].section_bytes);
}

absl::Status LayerStore::DecodePages(int group, int64_t first, int64_t count,
                                     const MutableRows& out) const {
  const Codec& codec = *plan_->codecs[group];
  const int64_t page_tokens = plan_->config->page_tokens;
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) % page_tokens;
    const int64_t rows = std::min(count - done, page_tokens - row);
    const Page& page = pages_[(first + done) / page_tokens];
    absl::Status status =
        codec.Decode(SectionOf(page, group), static_cast<int>(row),
                     static_cast<int>(rows), RowsFrom(out, done));
    if (!status.ok()) return Annotate(group, status);
    done += rows;
  }
  return absl::OkStatus();
}

absl::Status LayerStore::Annotate(int group, const absl::Status& status) const {
  return absl::Status(
      status.code(),
      absl::StrCat(GroupName(plan_->layer, group), ": ", status.message()));
}

}  // namespace ratequant::kv
