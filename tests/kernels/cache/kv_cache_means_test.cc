// Caches with means: attention is that over what Gather reads, and what can't
// be, is refused. That bytes are those of the rows less their mean,
// kv_cache_bytes_test and cache_devices_test show.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

using ::testing::HasSubstr;

constexpr int kQueryHeads = 4;
constexpr float kScale = 0.17f;

KvCacheConfig ConfigWithMeans() {
  KvCacheConfig config = MixedConfig(32, 4, 20);
  config.geometry.query_heads = kQueryHeads;
  AddMeans(config);
  return config;
}

std::unique_ptr<KvCache> Make(const KvCacheConfig& config) {
  auto cache = KvCache::Create(config);
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

// Attention of query head `head`'s only row over all of a layer, in fp64.
std::vector<double> Exact(const Gathered& layer, const float* query, int head) {
  const int kv_head = head / (kQueryHeads / kHeads);
  const int64_t tokens = layer.keys.tokens;
  std::vector<double> weights(tokens), out(kDim, 0.0);
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int c = 0; c < kDim; ++c) {
      weights[t] += kScale * double{query[c]} * layer.keys.at(kv_head, t, c);
    }
    max = std::max(max, weights[t]);
  }
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int c = 0; c < kDim; ++c) {
      out[c] += weights[t] / sum * layer.values.at(kv_head, t, c);
    }
  }
  return out;
}

// Short, and so long that its pages are done in several parts.
TEST(KvCacheMeans, AttentionIsThatOverWhatGatherReads) {
  for (const int64_t tokens : {3, 90, 3000}) {
    const auto cache = Make(ConfigWithMeans());
    const auto batch = cache->MakeBatch(1, 1);
    ASSERT_TRUE(batch.ok()) << batch.status();
    const int64_t id = *cache->AddSequence();
    const Values keys = RandomValues(tokens, 1),
                 values = RandomValues(tokens, 2);
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(
          AppendChunked(*cache, id, layer, keys, values, {tokens - 1}).ok());
    }
    ASSERT_TRUE(cache->Prepare({{id, 1}}, **batch).ok());
    const Values key = RandomValues(1, 3), value = RandomValues(1, 4);
    std::vector<float> queries = RandomValues(kQueryHeads / kHeads, 5).data;
    std::vector<float> out(queries.size());
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(
          cache->Append(**batch, layer, Slice(key, 0), Slice(value, 0)).ok());
      const absl::Status status = cache->Attend(
          **batch, layer, {.query_heads = kQueryHeads, .softmax_scale = kScale},
          {queries.data(), DType::kFloat32, kDim, kDim},
          {out.data(), DType::kFloat32, kDim, kDim});
      ASSERT_TRUE(status.ok()) << status;
      const Gathered all = GatherAll(*cache, id, layer);
      for (int head = 0; head < kQueryHeads; ++head) {
        const std::vector<double> want =
            Exact(all, queries.data() + head * kDim, head);
        for (int c = 0; c < kDim; ++c) {
          ASSERT_NEAR(out[head * kDim + c], want[c], 2e-4)
              << tokens << " tokens, layer " << layer << ", head " << head;
        }
      }
    }
  }
}

TEST(KvCacheMeans, ASoftCapIsRefused) {
  const auto cache = Make(ConfigWithMeans());
  const auto batch = *cache->MakeBatch(1, 1);
  const int64_t id = *cache->AddSequence();
  ASSERT_TRUE(cache->Prepare({{id, 1}}, *batch).ok());
  const Values row = RandomValues(1, 1);
  ASSERT_TRUE(cache->Append(*batch, 0, Slice(row, 0), Slice(row, 0)).ok());
  std::vector<float> rows(kQueryHeads * kDim, 1.0f);
  const absl::Status status = cache->Attend(
      *batch, 0,
      {.query_heads = kQueryHeads, .softmax_scale = 1.0f, .soft_cap = 30.0f},
      {rows.data(), DType::kFloat32, kDim, kDim},
      {rows.data(), DType::kFloat32, kDim, kDim});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("soft_cap 30 is not supported by a cache with means"));
}

TEST(KvCacheMeans, ValuesThatFp16CantHoldLessTheirMeanAreNamed) {
  KvCacheConfig config = MixedConfig(32, 4, 20);
  config.means.assign(config.groups.size() * kDim, 0.0f);
  config.means[2 * kDim + 5] = -100.0f;  // layer 0, head 1, K
  const auto cache = Make(config);
  const int64_t id = *cache->AddSequence();
  Values keys = RandomValues(60, 1);
  const Values values = RandomValues(60, 2);
  keys.data[(1 * 60 + 13) * kDim + 5] = 65500.0f;
  const absl::Status status =
      cache->Append(id, 0, 60, Slice(keys, 0), Slice(values, 0));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("head 1, K"));
  EXPECT_EQ(*cache->Length(id, 0), 0);
}

TEST(KvCacheMeans, MeansThatCantBeAreNamed) {
  const auto refused = [](const KvCacheConfig& config, const char* text) {
    const absl::Status status = KvCache::Create(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  KvCacheConfig config = ConfigWithMeans();
  config.means.pop_back();
  refused(config, "255 means; 8 groups of 32 channels have 256, or none");
  config = ConfigWithMeans();
  config.means[7] = std::numeric_limits<float>::quiet_NaN();
  refused(config, "means[7] is nan");
}

TEST(KvCacheMeans, ArePartOfTheFormat) {
  KvCacheConfig config = ConfigWithMeans();
  const std::string digest = FormatDigest(config);
  config.means[3] += 0.5f;
  EXPECT_NE(FormatDigest(config), digest);
  config.means.clear();
  EXPECT_NE(FormatDigest(config), digest);
}

}  // namespace
}  // namespace ratequant::kv
