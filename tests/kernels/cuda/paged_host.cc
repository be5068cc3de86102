#include "tests/kernels/cuda/paged_host.h"

#include <algorithm>
#include <cstring>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/section_layout.h"
#include "tests/kernels/cuda/scalar_oracle.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kMaxBlocks = 16;

SectionLayout LayoutOf(const PagedCase& c, int group) {
  const FormatSpec& format = c.groups[group];
  return MakeSectionLayout(format.quantizer, format.tensor, format.width,
                           c.head_dim, c.page_tokens);
}

int BlockTokens(const PagedCase& c, int group) {
  const FormatSpec& format = c.groups[group];
  return format.width == 16 ? 1
                            : MakeParamLayout(format.quantizer, format.tensor,
                                              c.head_dim, c.page_tokens)
                                  .block_tokens;
}

float Noise(uint64_t seed, uint64_t index) {
  return static_cast<float>(static_cast<int64_t>(SplitMix64(seed, index)) >>
                            40) /
         static_cast<float>(1 << 23);
}

}  // namespace

PagedHost::PagedHost(const PagedCase& c) : case_(c) {
  memory_.page_bytes = 0;
  for (int g = 0; g < static_cast<int>(c.groups.size()); ++g) {
    GroupPlace place;
    place.section_offset = static_cast<uint32_t>(memory_.page_bytes);
    place.sidecar_offset = memory_.sidecar_bytes;
    place.block_tokens = BlockTokens(c, g);
    place.ring_tokens = c.window + place.block_tokens - 1;
    groups_.push_back(place);
    memory_.page_bytes += static_cast<int64_t>(LayoutOf(c, g).section_bytes);
    memory_.sidecar_bytes +=
        int64_t{2} * c.head_dim * (c.sink_tokens + place.ring_tokens);
  }
  // So that a layer without sinks and window has sidecars to point to.
  memory_.sidecar_bytes += 16;
  const size_t sequences = c.steps.front().size();
  sequences_.resize(sequences);
  block_table_.assign(kSlots * kMaxBlocks, 0);
  for (size_t s = 0; s < sequences; ++s) {
    for (int block = 0; block < kMaxBlocks; ++block) {
      // Odd pages belong to nobody.
      block_table_[Slot(static_cast<int>(s)) * kMaxBlocks + block] =
          2 *
          static_cast<int32_t>((block * 7 + 3) % kMaxBlocks * sequences + s);
    }
  }
  pages_.assign(2 * kMaxBlocks * sequences * memory_.page_bytes, kUntouched);
  sidecars_.assign(kSlots * memory_.sidecar_bytes, kUntouched);
  memory_.pages = pages_.data();
  memory_.sidecars = sidecars_.data();
  memory_.block_table = block_table_.data();
  memory_.groups = groups_.data();
  memory_.max_blocks = kMaxBlocks;
  memory_.kv_heads = kv_heads();
  memory_.head_dim = c.head_dim;
  memory_.page_tokens = c.page_tokens;
  memory_.sink_tokens = c.sink_tokens;
  memory_.window = c.window;
  for (size_t s = 0; s < sequences; ++s) {
    for (const int32_t page : PagesOf(static_cast<int>(s))) {
      std::fill_n(pages_.begin() + page * memory_.page_bytes,
                  memory_.page_bytes, uint8_t{0});
    }
  }
  sequences_[0].packed_floor = c.packed_floor;
  if (c.packed_floor > 0) Append(0, c.packed_floor);
}

std::vector<int32_t> PagedHost::PagesOf(int s) const {
  const auto first = block_table_.begin() + Slot(s) * kMaxBlocks;
  return {first, first + kMaxBlocks};
}

float PagedHost::InputAt(int s, int group, int position, int channel) const {
  const uint64_t seed = 1 + s * 131 + group * 17;
  const uint64_t index = static_cast<uint64_t>(position) * 1024 + channel;
  if (SplitMix64(seed, 1u << 30 | static_cast<unsigned>(position)) % 11 == 0) {
    return channel % 5 == 0 ? -0.75f : 0.0f;
  }
  float value = Noise(seed, index) + Noise(seed + 1000, index);
  if (channel % 29 == 4) value = 6.0f * value + 3.0f;
  uint32_t stored;
  StoreElement(value, &stored, case_.dtype, 0);
  return LoadElement(&stored, case_.dtype, 0);
}

int PagedHost::Packed(int s, int group) const {
  return PackedEnd(sequences_[s].length, case_.window,
                   groups_[group].block_tokens, sequences_[s].packed_floor);
}

BatchCase PagedHost::SectionBatchOf() const {
  BatchCase batch;
  batch.head_dim = case_.head_dim;
  batch.page_tokens = case_.page_tokens;
  batch.row_stride = case_.head_dim;
  return batch;
}

void PagedHost::Append(int s, int count) {
  const int begin = sequences_[s].length;
  sequences_[s].length += count;
  for (int group = 0; group < 2 * kv_heads(); ++group) {
    WritePages(s, group);
    for (int p = begin; p < begin + count; ++p) {
      const bool sink = p < case_.sink_tokens;
      if (!sink && p < Packed(s, group)) continue;
      uint16_t* const row = sink ? memory_.SinkRow(Slot(s), groups_[group], p)
                                 : memory_.RingRow(Slot(s), groups_[group], p);
      for (int c = 0; c < case_.head_dim; ++c) {
        row[c] = HalfOfFloat(InputAt(s, group, p, c));
      }
    }
  }
}

void PagedHost::WritePages(int s, int group) {
  const int block = groups_[group].block_tokens;
  const int end = Packed(s, group);
  const int sinks = case_.sink_tokens;
  for (int first = sinks - sinks % block; first < end;) {
    const int page = first - first % case_.page_tokens;
    const int count = std::min(end, page + case_.page_tokens) - first;
    std::vector<float> rows;
    for (int p = first; p < first + count; ++p) {
      for (int c = 0; c < case_.head_dim; ++c) {
        rows.push_back(RoundToHalf(InputAt(s, group, p, c)));
      }
    }
    ScalarOracle().Encode(
        SectionBatchOf(),
        {case_.groups[group], first - page, count, std::max(sinks - page, 0)},
        rows.data(), memory_.Section(Slot(s), groups_[group], first));
    first += count;
  }
}

std::vector<float> PagedHost::ValueAt(int s, int group, int position) const {
  std::vector<float> values(case_.head_dim);
  if (position >= case_.sink_tokens && position < Packed(s, group)) {
    ScalarOracle().Decode(SectionBatchOf(),
                          {case_.groups[group], 0, case_.page_tokens, 0},
                          memory_.Section(Slot(s), groups_[group], position),
                          position % case_.page_tokens, 1, values.data());
    return values;
  }
  for (int c = 0; c < case_.head_dim; ++c) {
    values[c] = RoundToHalf(InputAt(s, group, position, c));
  }
  return values;
}

void PagedHost::ForgetStaleRows(const std::vector<uint8_t>& got) {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const int s = static_cast<int>(i);
    for (int group = 0; group < 2 * kv_heads(); ++group) {
      const GroupPlace& place = groups_[group];
      const int live =
          std::max(Packed(s, group), std::min(case_.sink_tokens, length(s)));
      for (int p = length(s); p < live + place.ring_tokens; ++p) {
        const ptrdiff_t at =
            reinterpret_cast<uint8_t*>(memory_.RingRow(Slot(s), place, p)) -
            sidecars_.data();
        std::copy_n(got.begin() + at, 2 * case_.head_dim,
                    sidecars_.begin() + at);
      }
    }
  }
}

}  // namespace ratequant::kv::cuda
