#include "tests/kernels/attention/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quantizers/codec_base.h"
#include "kernels/quantizers/element.h"
#include "kernels/reference/reference_attention.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

constexpr uint8_t kNanByte = 0x7F;  // 0x7F7F is an fp16 NaN

}  // namespace

std::string Describe(const AttentionShape& shape) {
  std::string text =
      absl::StrCat("head_dim ", shape.head_dim, ", ", shape.group,
                   " query heads, page ", shape.page_tokens, ", sinks ",
                   shape.sink_tokens, ", window ", shape.window, ", sliding ",
                   shape.sliding_window, ", cap ", shape.soft_cap, ", lengths");
  for (const AttentionSequence& sequence : shape.sequences) {
    absl::StrAppend(&text, " ", sequence.length, "/", sequence.queries);
  }
  return text;
}

AttentionCase::AttentionCase(const AttentionShape& shape,
                             const std::vector<GroupFormat>& formats,
                             uint64_t seed)
    : shape_(shape), formats_(formats) {
  const int dim = shape.head_dim;
  params_ = {.query_heads = shape.group * kv_heads(),
             .softmax_scale = 1.0f / std::sqrt(static_cast<float>(dim)),
             .soft_cap = shape.soft_cap,
             .sliding_window = shape.sliding_window};
  memory_.kv_heads = kv_heads();
  memory_.head_dim = dim;
  memory_.page_tokens = shape.page_tokens;
  memory_.sink_tokens = shape.sink_tokens;
  memory_.window = shape.window;
  for (size_t g = 0; g < formats.size(); ++g) {
    codecs_.push_back(
        *Codec::Create({.quantizer = formats[g].quantizer,
                        .tensor = g % 2 == 0 ? Tensor::kKey : Tensor::kValue,
                        .width = formats[g].width,
                        .head_dim = dim,
                        .page_tokens = shape.page_tokens}));
    plans_.push_back(PlanOf(*codecs_[g]));
    const int block = codecs_[g]->token_granule();
    GroupPlace place = {
        .section_offset = static_cast<uint32_t>(memory_.page_bytes),
        .sidecar_offset = memory_.sidecar_bytes,
        .block_tokens = block,
        .ring_tokens = shape.window + block - 1};
    memory_.page_bytes += codecs_[g]->layout().section_bytes;
    memory_.sidecar_bytes += (shape.sink_tokens + place.ring_tokens) * dim * 2;
    places_.push_back(place);
  }
  memory_.groups = places_.data();

  TestRandom random(seed);
  int longest = 1;
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    const AttentionSequence& sequence = shape.sequences[s];
    steps_.push_back({.slot = static_cast<int>(shape.sequences.size() - 1 - s),
                      .begin = sequence.length - sequence.queries,
                      .count = sequence.queries,
                      .first_row = query_rows_,
                      .packed_floor = sequence.packed_floor});
    query_rows_ += sequence.queries;
    longest = std::max(longest, sequence.length);
    Rows rows;
    for (std::vector<float>* const values : {&rows.keys, &rows.values}) {
      values->resize(static_cast<size_t>(kv_heads()) * sequence.length * dim);
      for (size_t i = 0; i < values->size(); ++i) {
        (*values)[i] = random.Normal() * (i % 29 == 3 ? 3.0f : 1.0f) +
                       (i % dim == 5 ? 2.0f : 0.0f);
      }
    }
    rows_.push_back(std::move(rows));
  }
  queries_.resize(static_cast<size_t>(params_.query_heads) * query_rows_ * dim);
  for (float& query : queries_) query = random.Normal();

  memory_.max_blocks = (longest + shape.page_tokens - 1) / shape.page_tokens;
  const size_t pages = shape.sequences.size() * memory_.max_blocks;
  // Neighbouring blocks lie far apart.
  for (size_t i = 0; i < pages; ++i) {
    block_table_.push_back(static_cast<int32_t>(pages - 1 - i));
  }
  memory_.block_table = block_table_.data();
  const size_t page_bytes = pages * memory_.page_bytes;
  const size_t sidecar_bytes = shape.sequences.size() * memory_.sidecar_bytes;
  page_memory_.reset(new uint8_t[page_bytes]);
  sidecars_.reset(new uint8_t[sidecar_bytes]);
  memset(page_memory_.get(), kNanByte, page_bytes);
  memset(sidecars_.get(), kNanByte, sidecar_bytes);
  memory_.pages = page_memory_.get();
  memory_.sidecars = sidecars_.get();
}

float* AttentionCase::RowOf(std::vector<Rows>& rows, Tensor tensor,
                            int sequence, int head, int position) {
  const int64_t row =
      static_cast<int64_t>(head) * shape_.sequences[sequence].length + position;
  std::vector<float>& values =
      tensor == Tensor::kKey ? rows[sequence].keys : rows[sequence].values;
  return values.data() + row * shape_.head_dim;
}

float* AttentionCase::Row(Tensor tensor, int sequence, int head, int position) {
  return RowOf(rows_, tensor, sequence, head, position);
}

void AttentionCase::Fill() {
  stored_ = rows_;
  for (size_t s = 0; s < shape_.sequences.size(); ++s) {
    for (size_t g = 0; g < formats_.size(); ++g) {
      FillGroup(static_cast<int>(s), static_cast<int>(g));
    }
  }
}

void AttentionCase::FillGroup(int sequence, int group) {
  const Tensor tensor = group % 2 == 0 ? Tensor::kKey : Tensor::kValue;
  const int head = group / 2;
  const int dim = shape_.head_dim;
  const int page = shape_.page_tokens;
  const int length = shape_.sequences[sequence].length;
  const SequenceStep& step = steps_[sequence];
  const GroupPlace& place = places_[group];
  const Codec& codec = *codecs_[group];
  const int packed_end =
      PackedEnd(length, shape_.window, place.block_tokens, step.packed_floor);
  for (int first = 0; first < packed_end; first += page) {
    const int count = std::min(page, packed_end - first);
    const absl::Span<uint8_t> section(memory_.Section(step.slot, place, first),
                                      codec.layout().section_bytes);
    const absl::Status encoded = codec.Encode(
        {Row(tensor, sequence, head, first), DType::kFloat32, dim}, 0, count,
        std::clamp(shape_.sink_tokens - first, 0, count), section);
    ASSERT_TRUE(encoded.ok()) << encoded;
    const absl::Status decoded = codec.Decode(
        section, 0, count,
        {RowOf(stored_, tensor, sequence, head, first), DType::kFloat32, dim});
    ASSERT_TRUE(decoded.ok()) << decoded;
  }
  for (int position = 0; position < length; ++position) {
    const bool sink = position < shape_.sink_tokens;
    if (!sink && position < packed_end) continue;
    uint16_t* const halves = sink ? memory_.SinkRow(step.slot, place, position)
                                  : memory_.RingRow(step.slot, place, position);
    const float* const row = Row(tensor, sequence, head, position);
    float* const stored = RowOf(stored_, tensor, sequence, head, position);
    for (int c = 0; c < dim; ++c) {
      halves[c] = HalfOfFloat(row[c]);
      stored[c] = FloatOfHalf(halves[c]);
    }
  }
}

PagedAttention::Options AttentionCase::LimitsFor(int threads,
                                                 Backend backend) const {
  return {.query_heads = params_.query_heads,
          .kv_heads = kv_heads(),
          .head_dim = shape_.head_dim,
          .max_entries = static_cast<int>(steps_.size()),
          .max_rows = std::max(1, query_rows_),
          .max_threads = threads,
          .backend = backend};
}

std::vector<float> AttentionCase::Run(Backend backend, LoopRunner* loops) {
  const int threads = loops != nullptr ? loops->concurrency() : 1;
  auto attention = PagedAttention::Create(LimitsFor(threads, backend));
  EXPECT_TRUE(attention.ok()) << attention.status();
  return Run(**attention, loops);
}

std::vector<float> AttentionCase::Run(PagedAttention& attention,
                                      LoopRunner* loops) {
  const int dim = shape_.head_dim;
  // Odd strides and rubbish between rows: what is read and written shows.
  const int stride = dim + 5;
  const std::vector<uint8_t> in =
      StoreAs(queries_, shape_.query_dtype, dim, stride);
  std::vector<uint8_t> out = StoreAs(std::vector<float>(queries_.size(), NAN),
                                     shape_.out_dtype, dim, stride);
  const int64_t head_stride = static_cast<int64_t>(query_rows_) * stride;
  attention.Run(memory_, plans_, steps_, params_,
                {in.data(), shape_.query_dtype, head_stride, stride},
                {out.data(), shape_.out_dtype, head_stride, stride}, loops);
  std::vector<float> rows;
  for (int row = 0; row < query_rows_; ++row) {
    for (int head = 0; head < params_.query_heads; ++head) {
      for (int c = 0; c < dim; ++c) {
        rows.push_back(LoadElement(out.data(), shape_.out_dtype,
                                   head * head_stride + row * stride + c));
      }
    }
  }
  return rows;
}

std::vector<double> AttentionCase::Reference(bool stored) {
  const int dim = shape_.head_dim;
  // Queries as the kernels see them.
  const std::vector<uint8_t> in =
      StoreAs(queries_, shape_.query_dtype, dim, dim);
  std::vector<double> out;
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (steps_[s].count == 0) continue;
    const Rows& rows = stored ? stored_[s] : rows_[s];
    const int64_t head_stride =
        static_cast<int64_t>(shape_.sequences[s].length) * dim;
    const std::vector<double> part = ReferenceAttention(
        params_, kv_heads(), dim, steps_[s],
        {rows.keys.data(), DType::kFloat32, head_stride, dim},
        {rows.values.data(), DType::kFloat32, head_stride, dim},
        {in.data(), shape_.query_dtype, static_cast<int64_t>(query_rows_) * dim,
         dim});
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

double AttentionCase::LargestValue() const {
  double largest = 0;
  for (const Rows& rows : stored_) {
    for (const float value : rows.values) {
      largest = std::max(largest, std::fabs(static_cast<double>(value)));
    }
  }
  return largest;
}

}  // namespace ratequant::kv
