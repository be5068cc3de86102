// What is in the cache, against whole sequences encoded in one go: every
// position, window, sinks, page size and chunking must give the same bytes.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

// Compares everything the cache holds of one layer with the oracle.
void ExpectMatches(const KvCache& cache, KvCache::SequenceId id, int layer,
                   const Values& keys, const Values& values) {
  const Gathered got = GatherAll(cache, id, layer);
  ASSERT_EQ(got.keys.tokens, keys.tokens);
  for (int group = 0; group < kHeads * 2; ++group) {
    SCOPED_TRACE(absl::StrCat("layer ", layer, ", group ", group));
    const Oracle want(cache.config(), layer, group,
                      group % 2 == 0 ? keys : values);
    const Values& read = group % 2 == 0 ? got.keys : got.values;
    for (int64_t t = 0; t < keys.tokens; ++t) {
      for (int c = 0; c < kDim; ++c) {
        ASSERT_EQ(read.at(group / 2, t, c), want.rows()[t * kDim + c])
            << "token " << t << ", channel " << c;
      }
    }
    for (int64_t page = 0; page < want.pages(); ++page) {
      const auto section = cache.Section(id, layer, group, page);
      ASSERT_TRUE(section.ok()) << section.status();
      ASSERT_EQ(std::vector<uint8_t>(section->begin(), section->end()),
                want.section(page))
          << "page " << page;
    }
    EXPECT_EQ(cache.Section(id, layer, group, want.pages()).status().code(),
              absl::StatusCode::kOutOfRange);
  }
}

// page_tokens, sink_tokens, window, whether there are means
using Shape = std::tuple<int, int, int, bool>;

class KvCacheBytes : public ::testing::TestWithParam<Shape> {
 protected:
  KvCacheConfig Config() const {
    const auto [page_tokens, sink_tokens, window, means] = GetParam();
    KvCacheConfig config = MixedConfig(page_tokens, sink_tokens, window);
    if (means) AddMeans(config);
    return config;
  }
};

TEST_P(KvCacheBytes, DontDependOnTheChunksAndMatchWholeSequences) {
  const KvCacheConfig config = Config();
  const int window = config.window, page = config.page_tokens;
  std::vector<int64_t> lengths = {1, 150};
  for (int around : {config.sink_tokens, window, window + config.sink_tokens,
                     window + 16, window + 32, window + page}) {
    for (int length : {around - 1, around, around + 1}) {
      if (length > 0) lengths.push_back(length);
    }
  }
  const auto cache = KvCache::Create(config);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const std::vector<std::vector<int64_t>> chunkings = {
      {1 << 20}, {1}, {32}, {7, 1, 40, 3}};
  for (int64_t length : lengths) {
    const Values keys = RandomValues(length, 2 * length);
    const Values values = RandomValues(length, 2 * length + 1);
    for (size_t i = 0; i < chunkings.size(); ++i) {
      SCOPED_TRACE(absl::StrCat(length, " tokens, chunking ", i));
      const KvCache::SequenceId id = *(*cache)->AddSequence();
      for (int layer = 0; layer < kLayers; ++layer) {
        const absl::Status status =
            AppendChunked(**cache, id, layer, keys, values, chunkings[i]);
        ASSERT_TRUE(status.ok()) << status;
        ExpectMatches(**cache, id, layer, keys, values);
      }
      ASSERT_TRUE((*cache)->RemoveSequence(id).ok());
      if (HasFailure()) return;
    }
  }
}

TEST_P(KvCacheBytes, AreRightAfterEveryToken) {
  const KvCacheConfig config = Config();
  const auto cache = KvCache::Create(config);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const KvCache::SequenceId id = *(*cache)->AddSequence();
  const int64_t tokens = config.window + config.sink_tokens + 40;
  const Values keys = RandomValues(tokens, 5);
  const Values values = RandomValues(tokens, 6);
  for (int64_t t = 0; t < tokens; ++t) {
    SCOPED_TRACE(absl::StrCat("after token ", t));
    ASSERT_TRUE(
        (*cache)->Append(id, 0, 1, Slice(keys, t), Slice(values, t)).ok());
    const auto first = [t](const Values& all) {
      Values some;
      some.tokens = t + 1;
      for (int head = 0; head < kHeads; ++head) {
        const float* begin = all.data.data() + head * all.tokens * kDim;
        some.data.insert(some.data.end(), begin, begin + (t + 1) * kDim);
      }
      return some;
    };
    ExpectMatches(**cache, id, 0, first(keys), first(values));
    if (HasFailure()) return;
  }
}

TEST_P(KvCacheBytes, AnyPartOfASequenceIsReadAsInTheWhole) {
  const auto cache = KvCache::Create(Config());
  ASSERT_TRUE(cache.ok()) << cache.status();
  const KvCache::SequenceId id = *(*cache)->AddSequence();
  const int64_t tokens = 170;
  ASSERT_TRUE(AppendChunked(**cache, id, 1, RandomValues(tokens, 8),
                            RandomValues(tokens, 9), {50})
                  .ok());
  const Gathered whole = GatherAll(**cache, id, 1);
  std::mt19937 engine(3);
  for (int i = 0; i < 300; ++i) {
    const int64_t first = engine() % (tokens + 1);
    const int64_t count = engine() % (tokens - first + 1);
    // Rows of all heads interleaved, with room between them.
    const int64_t stride = kHeads * kDim + 5;
    std::vector<float> keys((count + 1) * stride, -7), values = keys;
    const absl::Status status = (*cache)->Gather(
        id, 1, first, count, {keys.data(), DType::kFloat32, kDim, stride},
        {values.data(), DType::kFloat32, kDim, stride});
    ASSERT_TRUE(status.ok()) << status;
    for (int64_t t = 0; t <= count; ++t) {
      for (int x = 0; x < stride; ++x) {
        const bool written = t < count && x < kHeads * kDim;
        const int head = x / kDim, c = x % kDim;
        ASSERT_EQ(keys[t * stride + x],
                  written ? whole.keys.at(head, first + t, c) : -7);
        ASSERT_EQ(values[t * stride + x],
                  written ? whole.values.at(head, first + t, c) : -7);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, KvCacheBytes,
    ::testing::Values(Shape{32, 4, 32, false}, Shape{32, 0, 0, false},
                      Shape{32, 0, 1, false}, Shape{32, 1, 31, false},
                      Shape{32, 4, 33, false}, Shape{32, 31, 5, false},
                      Shape{32, 32, 16, false}, Shape{32, 33, 0, false},
                      Shape{32, 40, 64, false}, Shape{16, 4, 32, false},
                      Shape{16, 17, 0, false}, Shape{64, 4, 32, false},
                      Shape{128, 4, 7, false}, Shape{128, 0, 100, false},
                      Shape{32, 4, 1000, false}, Shape{32, 4, 32, true},
                      Shape{16, 0, 1, true}, Shape{128, 33, 20, true}),
    [](const auto& info) {
      return absl::StrCat("page", std::get<0>(info.param), "_sinks",
                          std::get<1>(info.param), "_window",
                          std::get<2>(info.param),
                          std::get<3>(info.param) ? "_means" : "");
    });

TEST(KvCacheCodecs, QuantizersThatDifferInOneParameterEachGetTheirOwn) {
  const auto spec = [](const char* text) {
    const absl::StatusOr<QuantizerSpec> parsed = ParseQuantizer(text);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return *parsed;
  };
  // Per layer K, V of head 0, then of head 1; the heads differ in one thing.
  const std::vector<std::vector<GroupFormat>> layer_pairs = {
      {{spec("turboquant"), 3},
       {spec("turboquant"), 3},
       {spec("turboquant:seed=1"), 3},
       {spec("turboquant:value_scale=l2"), 3},
       {spec("kivi"), 4},
       {spec("kivi"), 4},
       {spec("kivi:group_size=16"), 4},
       {spec("kivi:group_size=16"), 4}},
      {{spec("turboquant"), 2},
       {spec("quarot"), 5},
       {spec("turboquant:key_scale=unbiased"), 2},
       {spec("quarot:seed=9"), 5},
       {spec("rtn"), 4},
       {spec("rtn"), 4},
       {spec("rtn"), 5},
       {spec("quarot"), 4}}};
  const Values keys = RandomValues(100, 1), values = RandomValues(100, 2);
  for (const std::vector<GroupFormat>& groups : layer_pairs) {
    KvCacheConfig config = MixedConfig(32, 4, 10);
    config.groups = groups;
    const auto cache = KvCache::Create(config);
    ASSERT_TRUE(cache.ok()) << cache.status();
    const KvCache::SequenceId id = *(*cache)->AddSequence();
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(AppendChunked(**cache, id, layer, keys, values, {100}).ok());
      ExpectMatches(**cache, id, layer, keys, values);
    }
  }
}

TEST(KvCacheDTypes, SixteenBitInputGivesTheBytesOfItsValues) {
  // Values that fp16 and bf16 both hold exactly.
  Values keys = RandomValues(90, 1), values = RandomValues(90, 2);
  for (Values* v : {&keys, &values}) {
    for (float& x : v->data) x = static_cast<float>(static_cast<int>(x * 16));
  }
  const auto cache = KvCache::Create(MixedConfig(32, 4, 32));
  ASSERT_TRUE(cache.ok());
  const KvCache::SequenceId wide = *(*cache)->AddSequence();
  ASSERT_TRUE(AppendChunked(**cache, wide, 0, keys, values, {90}).ok());
  const Gathered want = GatherAll(**cache, wide, 0);
  for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    const auto narrow = [dtype](float x) -> uint16_t {
      // Small integers: the upper half of fp32, or fp16 through _Float16.
      if (dtype == DType::kBFloat16) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return static_cast<uint16_t>(bits >> 16);
      }
      const _Float16 half = static_cast<_Float16>(x);
      uint16_t bits;
      std::memcpy(&bits, &half, 2);
      return bits;
    };
    std::vector<uint16_t> k, v;
    for (float x : keys.data) k.push_back(narrow(x));
    for (float x : values.data) v.push_back(narrow(x));
    const KvCache::SequenceId id = *(*cache)->AddSequence();
    ASSERT_TRUE((*cache)
                    ->Append(id, 0, 90, {k.data(), dtype, 90 * kDim, kDim},
                             {v.data(), dtype, 90 * kDim, kDim})
                    .ok());
    const Gathered got = GatherAll(**cache, id, 0);
    EXPECT_EQ(got.keys.data, want.keys.data);
    EXPECT_EQ(got.values.data, want.values.data);
  }
}

TEST(KvCacheDTypes, SixteenBitOutputIsTheRoundedWideOne) {
  const auto cache = KvCache::Create(MixedConfig(32, 4, 32));
  ASSERT_TRUE(cache.ok());
  const KvCache::SequenceId id = *(*cache)->AddSequence();
  ASSERT_TRUE(AppendChunked(**cache, id, 0, RandomValues(90, 1),
                            RandomValues(90, 2), {90})
                  .ok());
  const Gathered want = GatherAll(**cache, id, 0);
  std::vector<uint16_t> halves(kHeads * 90 * kDim), bfloats(halves.size());
  ASSERT_TRUE((*cache)
                  ->Gather(id, 0, 0, 90,
                           {halves.data(), DType::kFloat16, 90 * kDim, kDim},
                           {bfloats.data(), DType::kBFloat16, 90 * kDim, kDim})
                  .ok());
  for (size_t i = 0; i < halves.size(); ++i) {
    const _Float16 half = static_cast<_Float16>(want.keys.data[i]);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    ASSERT_EQ(halves[i], bits) << want.keys.data[i];
    uint32_t wide;
    std::memcpy(&wide, &want.values.data[i], 4);
    const uint32_t low = bfloats[i] << 16;
    ASSERT_LE(std::abs(static_cast<int64_t>(low) - static_cast<int64_t>(wide)),
              0x8000)
        << want.values.data[i];
  }
}

}  // namespace
}  // namespace ratequant::kv
