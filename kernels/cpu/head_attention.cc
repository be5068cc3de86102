#include "kernels/cpu/head_attention.h"

#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstring>
#include <numeric>

#include "hwy/cache_control.h"

namespace ratequant::kv {
namespace {

constexpr int kKey = static_cast<int>(Tensor::kKey);
constexpr int kValue = static_cast<int>(Tensor::kValue);

// Rounded up to whole alignment units.
size_t Padded(size_t floats) {
  constexpr size_t kUnit = kRowAlignment / sizeof(float);
  return (floats + kUnit - 1) / kUnit * kUnit;
}

}  // namespace

HeadAttention::HeadAttention(const AttentionKernels& kernels, int dim,
                             int max_rows)
    : kernels_(kernels), dim_(dim), visible_(max_rows) {
  const size_t rows = Padded(static_cast<size_t>(max_rows) * dim);
  const size_t per_row = Padded(max_rows);
  const size_t tile = static_cast<size_t>(kTileTokens) * dim;
  const size_t scores = static_cast<size_t>(kTileTokens) * max_rows;
  const size_t total = 5 * rows + 5 * per_row + tile + scores;
  storage_ = hwy::AllocateAligned<float>(total);
  std::fill_n(storage_.get(), total, 0.0f);
  float* next = storage_.get();
  const auto take = [&next](size_t floats) {
    float* const taken = next;
    next += floats;
    return taken;
  };
  queries_ = take(rows);
  rotated_queries_ = take(rows);
  folded_queries_ = take(rows);
  state_.plain = take(rows);
  rotated_sums_ = take(rows);
  state_.max = take(per_row);
  state_.sum = take(per_row);
  state_.zero = take(per_row);
  query_sums_ = take(per_row);
  folded_constants_ = take(per_row);
  tile_ = take(tile);
  scores_ = take(scores);
  state_.dim = dim;
  std::fill_n(plain_factors_.scale, kTileTokens, 1.0f);
}

void HeadAttention::Run(const HeadTask& task, const ConstHeads& queries,
                        int begin, int end) {
  task_ = task;
  folded_end_ = 0;
  const int group = task.params->query_heads / task.memory->kv_heads;
  state_.rows = task.step.count * group;
  state_.rotated = IsRotated(kValue) ? rotated_sums_ : nullptr;
  std::fill_n(state_.max, state_.rows, -FLT_MAX);
  std::fill_n(state_.sum, state_.rows, 0.0f);
  std::fill_n(state_.zero, state_.rows, 0.0f);
  std::fill_n(state_.plain, state_.rows * dim_, 0.0f);
  std::fill_n(rotated_sums_, state_.rows * dim_, 0.0f);
  LoadQueries(queries);
  for (int position = begin; position < end;) {
    const Source keys = Locate(kKey, position);
    const Source values = Locate(kValue, position);
    const int count =
        std::min({keys.end, values.end, end, position + kTileTokens}) -
        position;
    Prefetch(kKey, position + count, end);
    Prefetch(kValue, position + count, end);
    ScoreKeys(keys, count);
    LoadTile(kValue, values, count, value_factors_);
    AddValues(keys, values, position, count);
    position += count;
  }
  Finish();
}

void HeadAttention::LoadQueries(const ConstHeads& queries) {
  const int count = task_.step.count;
  const int group = state_.rows / count;
  for (int r = 0; r < state_.rows; ++r) {
    const int64_t head = static_cast<int64_t>(task_.head) * group + r / count;
    const int64_t row = task_.step.first_row + r % count;
    const int64_t element =
        head * queries.head_stride + row * queries.row_stride;
    float* const query = queries_ + r * dim_;
    kernels_.load_row(
        static_cast<const uint8_t*>(queries.data) +
            element * static_cast<int64_t>(ElementSize(queries.dtype)),
        queries.dtype, dim_, task_.params->softmax_scale, query);
    const float* packed = query;
    if (IsRotated(kKey)) {
      float* const rotated = rotated_queries_ + r * dim_;
      std::copy_n(query, dim_, rotated);
      kernels_.rotate(task_.plans[kKey].signs, dim_, rotated);
      packed = rotated;
    }
    query_sums_[r] = std::accumulate(packed, packed + dim_, 0.0f);
  }
}

HeadAttention::Source HeadAttention::Locate(int tensor, int position) const {
  const LayerMemory& memory = *task_.memory;
  const GroupPlace& place = PlaceOf(tensor);
  const int slot = task_.step.slot;
  const int length = task_.step.begin + task_.step.count;
  Source source;
  if (position < memory.sink_tokens) {
    source.halves = memory.SinkRow(slot, place, position);
    source.end = memory.sink_tokens;
    return source;
  }
  const int packed_end = PackedEnd(length, memory.window, place.block_tokens,
                                   task_.step.packed_floor);
  if (position >= packed_end) {
    source.halves = memory.RingRow(slot, place, position);
    source.end = position + place.ring_tokens - position % place.ring_tokens;
    return source;
  }
  source.section = memory.Section(slot, place, position);
  source.row = position % memory.page_tokens;
  // A tile stays inside a block of common parameters, where there are any.
  const int block =
      place.block_tokens > 1 ? place.block_tokens : memory.page_tokens;
  source.end = std::min(packed_end, position - position % block + block);
  return source;
}

void HeadAttention::Prefetch(int tensor, int position, int end) const {
  constexpr size_t kLine = 64;
  if (position >= end) return;
  const Source source = Locate(tensor, position);
  if (source.section == nullptr) return;
  const SectionLayout& layout = task_.plans[tensor].layout;
  const auto fetch = [](const uint8_t* bytes, size_t count) {
    for (size_t i = 0; i < count; i += kLine) hwy::Prefetch(bytes + i);
  };
  // A page's parameters come with its first tile.
  if (source.row < kTileTokens) fetch(source.section, layout.params_bytes);
  fetch(source.section + layout.codes_offset + source.row * layout.row_bytes,
        std::min(source.end - position, kTileTokens) * layout.row_bytes);
}

void HeadAttention::LoadTile(int tensor, const Source& source, int count,
                             TileFactors& factors) {
  const RowPlan& plan = task_.plans[tensor];
  if (source.halves != nullptr) {
    kernels_.load_halves(source.halves, count * dim_, tile_);
  } else if (plan.stores_halves) {
    kernels_.load_halves(reinterpret_cast<const uint16_t*>(
                             source.section + plan.layout.codes_offset +
                             source.row * plan.layout.row_bytes),
                         count * dim_, tile_);
    factors = plain_factors_;
  } else {
    // The rest of the page is this sequence's too.
    const size_t readable =
        task_.memory->page_bytes - PlaceOf(tensor).section_offset;
    kernels_.load_packed(plan, source.section, readable, source.row, count,
                         tile_, factors);
  }
}

void HeadAttention::ScoreKeys(const Source& source, int count) {
  LoadTile(kKey, source, count, key_factors_);
  const float* queries = queries_;
  constants_ = query_sums_;
  if (source.halves == nullptr) {
    if (task_.plans[kKey].params.block_tokens > 1) {
      FoldQueries(source);
      queries = folded_queries_;
      constants_ = folded_constants_;
    } else if (IsRotated(kKey)) {
      queries = rotated_queries_;
    }
  }
  kernels_.score(queries, state_.rows, tile_, count, dim_, scores_);
}

void HeadAttention::FoldQueries(const Source& source) {
  if (folded_end_ == source.end) return;
  kernels_.fold_channels(task_.plans[kKey], source.section, source.row,
                         queries_, state_.rows, folded_queries_,
                         folded_constants_);
  folded_end_ = source.end;
}

void HeadAttention::FindVisible(int position, int count) {
  const int window = task_.params->sliding_window;
  for (int r = 0; r < state_.rows; ++r) {
    const int query = task_.step.begin + r % task_.step.count;
    const int first = window > 0 ? query - window + 1 : 0;
    visible_[r] = {std::clamp(first - position, 0, count),
                   std::clamp(query + 1 - position, 0, count)};
  }
}

void HeadAttention::AddValues(const Source& keys, const Source& values,
                              int position, int count) {
  FindVisible(position, count);
  kernels_.weigh(
      keys.halves != nullptr ? plain_factors_ : key_factors_, constants_,
      values.halves != nullptr ? plain_factors_ : value_factors_,
      visible_.data(), count, task_.params->soft_cap, scores_, state_);
  const bool rotated = values.halves == nullptr && IsRotated(kValue);
  kernels_.accumulate(scores_, state_.rows, tile_, count, dim_,
                      rotated ? rotated_sums_ : state_.plain);
}

void HeadAttention::Finish() {
  for (int r = 0; r < state_.rows; ++r) {
    float* const sums = state_.plain + r * dim_;
    float* const packed = IsRotated(kValue) ? rotated_sums_ + r * dim_ : sums;
    for (int c = 0; c < dim_; ++c) packed[c] += state_.zero[r];
    if (packed == sums) continue;
    kernels_.rotate_back(task_.plans[kValue].signs, dim_, packed);
    for (int c = 0; c < dim_; ++c) sums[c] += packed[c];
  }
}

}  // namespace ratequant::kv
