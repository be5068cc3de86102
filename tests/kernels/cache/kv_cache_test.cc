#include "ratequant/kv/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

std::unique_ptr<KvCache> Make(const KvCacheConfig& config) {
  absl::StatusOr<std::unique_ptr<KvCache>> cache = KvCache::Create(config);
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

void AppendAllLayers(KvCache& cache, KvCache::SequenceId id, int64_t tokens,
                     uint64_t seed) {
  for (int layer = 0; layer < kLayers; ++layer) {
    const absl::Status status =
        AppendChunked(cache, id, layer, RandomValues(tokens, seed),
                      RandomValues(tokens, seed + 1), {tokens});
    ASSERT_TRUE(status.ok()) << status;
  }
}

TEST(KvCache, SinksAndWindowAreExactAndOlderTokensAreNot) {
  const auto cache = Make(MixedConfig(32, 4, 32));
  const auto id = *cache->AddSequence();
  Values keys = RandomValues(100, 1), values = RandomValues(100, 2);
  // Multiples of 1/64 below 32: fp16 holds them exactly.
  for (Values* v : {&keys, &values}) {
    for (float& x : v->data)
      x = static_cast<float>(static_cast<int>(x * 64)) / 64;
  }
  ASSERT_TRUE(AppendChunked(*cache, id, 0, keys, values, {100}).ok());
  const Gathered got = GatherAll(*cache, id, 0);
  for (int head = 0; head < kHeads; ++head) {
    for (int64_t t = 0; t < 100; ++t) {
      const bool exact = t < 4 || t >= 68;
      bool same = true;
      for (int c = 0; c < kDim; ++c) {
        same = same && got.values.at(head, t, c) == values.at(head, t, c);
      }
      EXPECT_EQ(same, exact) << "head " << head << ", token " << t;
    }
  }
}

TEST(KvCache, SixteenBitGroupsAreExactInPagesToo) {
  KvCacheConfig config = MixedConfig(32, 0, 0);
  for (GroupFormat& group : config.groups) group.width = 16;
  const auto cache = Make(config);
  const auto id = *cache->AddSequence();
  Values keys = RandomValues(70, 1);
  for (float& x : keys.data)
    x = static_cast<float>(static_cast<int>(x * 64)) / 64;
  ASSERT_TRUE(AppendChunked(*cache, id, 0, keys, keys, {70}).ok());
  const Gathered got = GatherAll(*cache, id, 0);
  EXPECT_EQ(got.keys.data, keys.data);
  EXPECT_EQ(got.values.data, keys.data);
}

TEST(KvCache, EachLayerHasItsOwnLength) {
  const auto cache = Make(MixedConfig(32, 4, 32));
  const auto id = *cache->AddSequence();
  const Values values = RandomValues(40, 1);
  ASSERT_TRUE(AppendChunked(*cache, id, 1, values, values, {40}).ok());
  EXPECT_EQ(*cache->Length(id, 0), 0);
  EXPECT_EQ(*cache->Length(id, 1), 40);
}

TEST(KvCache, AppendingNothingChangesNothing) {
  const auto cache = Make(MixedConfig(32, 4, 32));
  const auto id = *cache->AddSequence();
  EXPECT_TRUE(cache->Append(id, 0, 0, {}, {}).ok());
  EXPECT_EQ(*cache->Length(id, 0), 0);
  EXPECT_EQ(*cache->AllocatedBytes(id), 0);
  EXPECT_TRUE(cache->Gather(id, 0, 0, 0, {}, {}).ok());
}

TEST(KvCache, GatherReadsOnlyTheTensorThatIsWanted) {
  const auto cache = Make(MixedConfig(32, 4, 32));
  const auto id = *cache->AddSequence();
  AppendAllLayers(*cache, id, 80, 1);
  const Gathered both = GatherAll(*cache, id, 0);
  std::vector<float> out(kHeads * 80 * kDim);
  const MutableHeads heads = {out.data(), DType::kFloat32, 80 * kDim, kDim};
  ASSERT_TRUE(cache->Gather(id, 0, 0, 80, heads, {}).ok());
  EXPECT_EQ(out, both.keys.data);
  ASSERT_TRUE(cache->Gather(id, 0, 0, 80, {}, heads).ok());
  EXPECT_EQ(out, both.values.data);
}

TEST(KvCache, AppendReadsHeadsInterleavedRowByRow) {
  const auto cache = Make(MixedConfig(32, 4, 32));
  const Values keys = RandomValues(80, 1), values = RandomValues(80, 2);
  const auto dense = *cache->AddSequence();
  ASSERT_TRUE(AppendChunked(*cache, dense, 0, keys, values, {80}).ok());
  // [tokens, heads, dim], as attention projections leave it.
  const auto interleaved = [](const Values& v) {
    std::vector<float> out;
    for (int64_t t = 0; t < v.tokens; ++t) {
      for (int head = 0; head < kHeads; ++head) {
        for (int c = 0; c < kDim; ++c) out.push_back(v.at(head, t, c));
      }
    }
    return out;
  };
  const std::vector<float> k = interleaved(keys), v = interleaved(values);
  const auto id = *cache->AddSequence();
  ASSERT_TRUE(cache
                  ->Append(id, 0, 80,
                           {k.data(), DType::kFloat32, kDim, kHeads * kDim},
                           {v.data(), DType::kFloat32, kDim, kHeads * kDim})
                  .ok());
  EXPECT_EQ(GatherAll(*cache, id, 0).keys.data,
            GatherAll(*cache, dense, 0).keys.data);
  EXPECT_EQ(GatherAll(*cache, id, 0).values.data,
            GatherAll(*cache, dense, 0).values.data);
}

TEST(KvCache, BothBackendsStoreTheSameBytes) {
  const KvCacheConfig config = MixedConfig(32, 4, 32);
  const auto simd = Make(config);
  auto reference = KvCache::Create(config, {.backend = Backend::kReference});
  ASSERT_TRUE(reference.ok());
  const auto a = *simd->AddSequence(), b = *(*reference)->AddSequence();
  AppendAllLayers(*simd, a, 150, 1);
  AppendAllLayers(**reference, b, 150, 1);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int group = 0; group < kHeads * 2; ++group) {
      for (int page = 0; page < 4; ++page) {
        const auto x = simd->Section(a, layer, group, page);
        const auto y = (*reference)->Section(b, layer, group, page);
        ASSERT_TRUE(x.ok() && y.ok());
        ASSERT_EQ(*x, *y) << layer << " " << group << " " << page;
      }
    }
  }
}

TEST(KvCache, AllocatedBytesFollowTheBudgetsFormula) {
  for (const int window : {0, 1, 32, 50}) {
    for (const int sinks : {0, 4, 40}) {
      SCOPED_TRACE(absl::StrCat("window ", window, ", sinks ", sinks));
      const KvCacheConfig config = MixedConfig(32, sinks, window);
      const auto cache = Make(config);
      // Room for kivi K tokens that wait: groups of 32 and of 16, one each.
      const int64_t waiting = (31 + 15) * kDim * 2;
      const auto id = *cache->AddSequence();
      EXPECT_EQ(*cache->AllocatedBytes(id), 0);
      for (int64_t length = 1; length < 200; ++length) {
        AppendAllLayers(*cache, id, 1, length);
        const int64_t counted = SequenceBytes(config, cache->layout(), length);
        const int64_t allocated = *cache->AllocatedBytes(id);
        ASSERT_GE(allocated, counted) << length << " tokens";
        if (length >= sinks + window + config.page_tokens) {
          ASSERT_LE(allocated, counted + waiting) << length << " tokens";
        }
      }
      // Without kivi K nothing waits, and the formula is exact.
      KvCacheConfig plain = config;
      plain.groups[0] = plain.groups[2];
      plain.groups[6] = plain.groups[2];
      const auto exact = Make(plain);
      const auto other = *exact->AddSequence();
      AppendAllLayers(*exact, other, sinks + window + 50, 1);
      EXPECT_EQ(*exact->AllocatedBytes(other),
                SequenceBytes(plain, exact->layout(), sinks + window + 50));
    }
  }
}

TEST(KvCache, ALargeWindowCostsWhatIsInIt) {
  const auto cache = Make(MixedConfig(32, 4, 2'000'000'000));
  const auto id = *cache->AddSequence();
  AppendAllLayers(*cache, id, 100, 1);
  const int64_t token = kLayers * kHeads * 2 * kDim * 2;
  EXPECT_GE(*cache->AllocatedBytes(id), 100 * token);
  EXPECT_LE(*cache->AllocatedBytes(id), 204 * token);
}

TEST(KvCache, FreedPagesAreUsedAgainAndHoldNothingOld) {
  const KvCacheConfig config = MixedConfig(32, 4, 32);
  const auto cache = Make(config);
  const auto first = *cache->AddSequence();
  AppendAllLayers(*cache, first, 300, 1);
  EXPECT_EQ(cache->FreePageBytes(), 0);
  ASSERT_TRUE(cache->RemoveSequence(first).ok());
  const int64_t pages = (300 - 32 + 31) / 32;
  const int64_t page_bytes = cache->layout().page_bytes();
  EXPECT_EQ(cache->FreePageBytes(), pages * page_bytes);

  const auto second = *cache->AddSequence();
  AppendAllLayers(*cache, second, 32 + 65, 7);  // three pages, the last with 1
  EXPECT_EQ(cache->FreePageBytes(), (pages - 3) * page_bytes);
  const auto fresh = Make(config);
  const auto clean = *fresh->AddSequence();
  AppendAllLayers(*fresh, clean, 32 + 65, 7);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int group = 0; group < kHeads * 2; ++group) {
      for (int page = 0; page < 3; ++page) {
        EXPECT_EQ(*cache->Section(second, layer, group, page),
                  *fresh->Section(clean, layer, group, page));
      }
    }
  }
  cache->ReleaseFreePages();
  EXPECT_EQ(cache->FreePageBytes(), 0);
}

TEST(KvCache, ManySequencesDontMix) {
  const auto cache = Make(MixedConfig(16, 4, 20));
  std::vector<KvCache::SequenceId> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(*cache->AddSequence());
  EXPECT_EQ(std::set<int64_t>(ids.begin(), ids.end()).size(), 50u);
  // In turns, in pieces of changing size.
  for (int64_t piece = 1; piece <= 12; ++piece) {
    for (size_t i = 0; i < ids.size(); ++i) {
      AppendAllLayers(*cache, ids[i], piece, 100 * i + piece);
    }
  }
  for (size_t i = 0; i < ids.size(); i += 2) {
    ASSERT_TRUE(cache->RemoveSequence(ids[i]).ok());
  }
  for (size_t i = 1; i < ids.size(); i += 2) {
    const auto alone = Make(MixedConfig(16, 4, 20));
    const auto id = *alone->AddSequence();
    for (int64_t piece = 1; piece <= 12; ++piece) {
      AppendAllLayers(*alone, id, piece, 100 * i + piece);
    }
    for (int layer = 0; layer < kLayers; ++layer) {
      const Gathered got = GatherAll(*cache, ids[i], layer);
      const Gathered want = GatherAll(*alone, id, layer);
      ASSERT_EQ(got.keys.data, want.keys.data) << "sequence " << i;
      ASSERT_EQ(got.values.data, want.values.data) << "sequence " << i;
    }
  }
  EXPECT_EQ(cache->Length(ids[0], 0).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_GT(*cache->AddSequence(), ids.back());
}

TEST(KvCache, SequencesOfDifferentThreadsDontDisturbEachOther) {
  const KvCacheConfig config = MixedConfig(32, 4, 16);
  const auto cache = Make(config);
  constexpr int kThreads = 4;
  std::vector<Gathered> got(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      // Freed pages wander between the threads.
      for (int round = 0; round < 10; ++round) {
        const auto id = *cache->AddSequence();
        AppendAllLayers(*cache, id, 5, 1000 * i);
        AppendAllLayers(*cache, id, 120, 1000 * i + round);
        got[i] = GatherAll(*cache, id, 1);
        EXPECT_TRUE(cache->RemoveSequence(id).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads; ++i) {
    const auto alone = Make(config);
    const auto id = *alone->AddSequence();
    AppendAllLayers(*alone, id, 5, 1000 * i);
    AppendAllLayers(*alone, id, 120, 1000 * i + 9);
    const Gathered want = GatherAll(*alone, id, 1);
    EXPECT_EQ(got[i].keys.data, want.keys.data) << "thread " << i;
    EXPECT_EQ(got[i].values.data, want.values.data) << "thread " << i;
  }
}

}  // namespace
}  // namespace ratequant::kv
