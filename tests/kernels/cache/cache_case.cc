#include "tests/kernels/cache/cache_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "kernels/quantizers/number.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/codec.h"

namespace ratequant::kv {

KvCacheConfig MixedConfig(int page_tokens, int sink_tokens, int window) {
  QuantizerSpec kivi;
  QuantizerSpec kivi16 = kivi;
  kivi16.group_size = 16;
  QuantizerSpec rtn;
  rtn.kind = QuantizerKind::kRtn;
  QuantizerSpec quarot;
  quarot.kind = QuantizerKind::kQuarot;
  quarot.seed = 7;
  QuantizerSpec turbo;
  turbo.kind = QuantizerKind::kTurboquant;
  // Groups of 32 don't fit pages of 16.
  const QuantizerSpec& large = page_tokens % 32 == 0 ? kivi : kivi16;
  KvCacheConfig config;
  config.geometry = {kLayers, kHeads, kDim};
  config.groups = {{large, 3}, {large, 2},  {rtn, 4},    {turbo, 3},
                   {turbo, 1}, {quarot, 5}, {kivi16, 8}, {{}, kFp16Width}};
  config.page_tokens = page_tokens;
  config.sink_tokens = sink_tokens;
  config.window = window;
  return config;
}

void AddMeans(KvCacheConfig& config) {
  std::mt19937_64 engine(99);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  config.means.resize(config.groups.size() * config.geometry.head_dim);
  for (float& mean : config.means) mean = normal(engine);
}

Values RandomValues(int64_t tokens, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  Values values;
  values.tokens = tokens;
  values.data.resize(kHeads * tokens * kDim);
  for (float& value : values.data) value = normal(engine);
  return values;
}

ConstHeads Slice(const Values& values, int64_t first) {
  return {values.data.data() + first * kDim, DType::kFloat32,
          values.tokens * kDim, kDim};
}

absl::Status AppendChunked(KvCache& cache, KvCache::SequenceId id, int layer,
                           const Values& keys, const Values& values,
                           const std::vector<int64_t>& chunks) {
  size_t next = 0;
  for (int64_t done = 0; done < keys.tokens;) {
    const int64_t tokens = std::min(chunks[next], keys.tokens - done);
    absl::Status status =
        cache.Append(id, layer, tokens, Slice(keys, done), Slice(values, done));
    if (!status.ok()) return status;
    done += tokens;
    next = std::min(next + 1, chunks.size() - 1);
  }
  return absl::OkStatus();
}

Gathered GatherAll(const KvCache& cache, KvCache::SequenceId id, int layer) {
  const absl::StatusOr<int64_t> length = cache.Length(id, layer);
  EXPECT_TRUE(length.ok()) << length.status();
  Gathered out;
  for (Values* values : {&out.keys, &out.values}) {
    values->tokens = *length;
    values->data.assign(kHeads * *length * kDim, -12345.0f);
  }
  const auto heads = [&](Values& values) {
    return MutableHeads{values.data.data(), DType::kFloat32, *length * kDim,
                        kDim};
  };
  const absl::Status status =
      cache.Gather(id, layer, 0, *length, heads(out.keys), heads(out.values));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

Oracle::Oracle(const KvCacheConfig& config, int layer, int group,
               const Values& values) {
  const int head = group / 2;
  const GroupFormat& format = config.groups[layer * kHeads * 2 + group];
  const auto codec = Codec::Create(
      {format.quantizer, group % 2 == 0 ? Tensor::kKey : Tensor::kValue,
       format.width, kDim, config.page_tokens, Backend::kReference});
  EXPECT_TRUE(codec.ok()) << codec.status();
  const int64_t length = values.tokens;
  const auto mean = [&](int c) {
    return config.means.empty()
               ? 0.0f
               : config.means[(layer * kHeads * 2 + group) * kDim + c];
  };
  const int64_t left = std::max<int64_t>(0, length - config.window);
  const int64_t granule = (*codec)->token_granule();
  const int64_t packed = left / granule * granule;
  for (int64_t t = 0; t < length; ++t) {
    for (int c = 0; c < kDim; ++c) {
      rows_.push_back(RoundToHalf(values.at(head, t, c) - mean(c)));
    }
  }
  const int64_t page_tokens = config.page_tokens;
  for (int64_t begin = 0; begin < left; begin += page_tokens) {
    std::vector<uint8_t> section((*codec)->layout().section_bytes, 0);
    const int count = std::clamp<int64_t>(packed - begin, 0, page_tokens);
    const int skip =
        std::clamp<int64_t>(config.sink_tokens - begin, 0, page_tokens);
    float* rows = rows_.data() + begin * kDim;
    absl::Status status = (*codec)->Encode(
        {rows, DType::kFloat32, kDim}, 0, count, skip, absl::MakeSpan(section));
    EXPECT_TRUE(status.ok()) << status;
    const int first = std::min(skip, count);
    status = (*codec)->Decode(section, first, count - first,
                              {rows + first * kDim, DType::kFloat32, kDim});
    EXPECT_TRUE(status.ok()) << status;
    sections_.push_back(std::move(section));
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i] += mean(static_cast<int>(i) % kDim);
  }
}

}  // namespace ratequant::kv
