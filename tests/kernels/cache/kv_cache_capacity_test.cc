// A cache of few pages and sequences: running out changes nothing and is
// survived, and every page comes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<KvCache> Make(const KvCacheOptions& options) {
  absl::StatusOr<std::unique_ptr<KvCache>> cache =
      KvCache::Create(MixedConfig(32, 4, 20), options);
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

absl::Status AppendTo(KvCache& cache, int64_t id, int64_t tokens) {
  for (int layer = 0; layer < kLayers; ++layer) {
    absl::Status status =
        AppendChunked(cache, id, layer, RandomValues(tokens, id),
                      RandomValues(tokens, id + 1), {tokens});
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

TEST(KvCacheCapacity, RunningOutOfPagesChangesNothingAndIsSurvived) {
  const auto cache = Make({.num_pages = 5});
  const int64_t a = *cache->AddSequence(), b = *cache->AddSequence();
  ASSERT_TRUE(AppendTo(*cache, a, 20 + 64).ok());  // two pages
  ASSERT_TRUE(AppendTo(*cache, b, 20 + 65).ok());  // three
  EXPECT_EQ(cache->FreePages(), 0);
  const Gathered before = GatherAll(*cache, a, 0);
  const int64_t bytes = *cache->AllocatedBytes(a);

  const Values more = RandomValues(1, 7);
  const absl::Status status =
      cache->Append(a, 0, 1, Slice(more, 0), Slice(more, 0));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("1 pages are needed and 0 of 5 are free"));
  EXPECT_EQ(*cache->Length(a, 0), 84);
  EXPECT_EQ(*cache->AllocatedBytes(a), bytes);
  EXPECT_EQ(GatherAll(*cache, a, 0).keys.data, before.keys.data);

  // A whole step is refused when one of its sequences has no page.
  const auto batch = cache->MakeBatch(2, 32);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(cache->Prepare({{b, 1}, {a, 32}}, **batch).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache->Append(**batch, 0, Slice(more, 0), Slice(more, 0)).code(),
            absl::StatusCode::kFailedPrecondition);

  ASSERT_TRUE(cache->RemoveSequence(b).ok());
  EXPECT_EQ(cache->FreePages(), 3);
  EXPECT_TRUE(cache->Append(a, 0, 1, Slice(more, 0), Slice(more, 0)).ok());
  EXPECT_EQ(cache->FreePages(), 2);
}

TEST(KvCacheCapacity, EveryPageComesBack) {
  const auto cache = Make({.num_pages = 40, .max_sequences = 8});
  for (int round = 0; round < 3; ++round) {
    std::vector<int64_t> ids;
    for (int i = 0; i < 4; ++i) {
      ids.push_back(*cache->AddSequence());
      ASSERT_TRUE(AppendTo(*cache, ids.back(), 50 + 40 * i).ok());
      const auto child =
          cache->ForkSequence(ids.back(), *cache->Length(ids.back(), 0));
      ASSERT_TRUE(child.ok()) << child.status();
      ids.push_back(*child);
      ASSERT_TRUE(AppendTo(*cache, *child, 33).ok());
    }
    EXPECT_EQ(cache->AddSequence().status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_LT(cache->FreePages(), 40);
    for (int64_t id : ids) ASSERT_TRUE(cache->RemoveSequence(id).ok());
    EXPECT_EQ(cache->FreePages(), 40);
  }
}

TEST(KvCacheCapacity, SequencesEndAtMaxTokens) {
  const auto cache = Make({.num_pages = 10, .max_tokens = 100});
  const int64_t id = *cache->AddSequence();
  ASSERT_TRUE(AppendTo(*cache, id, 100).ok());
  EXPECT_EQ(AppendTo(*cache, id, 1).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*cache->Length(id, 0), 100);
}

// Bytes of this process that are in memory.
int64_t ResidentBytes() {
  long total = 0, resident = 0;
  FILE* const file = std::fopen("/proc/self/statm", "r");
  EXPECT_NE(file, nullptr);
  EXPECT_EQ(std::fscanf(file, "%ld %ld", &total, &resident), 2);
  std::fclose(file);
  return int64_t{resident} * 4096;
}

TEST(KvCacheCapacity, MemoryIsUsedAsCountedAndGivenBack) {
  const auto cache = Make({.num_pages = 40'000});
  EXPECT_GE(cache->ReservedBytes(),
            40'000 * static_cast<int64_t>(cache->layout().page_bytes()));
  const int64_t id = *cache->AddSequence();
  const Values values = RandomValues(100'000, 1);
  const int64_t before = ResidentBytes();
  for (int layer = 0; layer < kLayers; ++layer) {
    ASSERT_TRUE(
        cache->Append(id, layer, 100'000, Slice(values, 0), Slice(values, 0))
            .ok());
  }
  const int64_t counted = *cache->AllocatedBytes(id);
  EXPECT_NEAR(static_cast<double>(ResidentBytes() - before),
              static_cast<double>(counted), 0.05 * counted + (1 << 20));
  ASSERT_TRUE(cache->RemoveSequence(id).ok());
  cache->ReleaseFreePages();
  EXPECT_NEAR(static_cast<double>(ResidentBytes() - before), 0.0,
              0.05 * counted + (1 << 20));
}

TEST(KvCacheCapacity, OptionsOutOfRange) {
  const auto refused = [](const KvCacheOptions& options, absl::StatusCode code,
                          const char* text) {
    const auto cache = KvCache::Create(MixedConfig(32, 4, 20), options);
    EXPECT_EQ(cache.status().code(), code) << cache.status();
    EXPECT_THAT(std::string(cache.status().message()), HasSubstr(text));
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  refused({.num_pages = -1}, invalid, "num_pages -1");
  refused({.max_sequences = 0}, invalid, "max_sequences 0");
  refused({.max_tokens = int64_t{1} << 31}, invalid, "max_tokens 2147483648");
  refused({.device = {static_cast<DeviceKind>(9), 0}}, invalid,
          "device kind 9");
  refused({.device = {DeviceKind::kCuda, 0}}, invalid, "num_pages 0");
  refused({.num_pages = 2'000'000'000, .max_sequences = 1 << 20},
          absl::StatusCode::kResourceExhausted, "can't reserve");
}

}  // namespace
}  // namespace ratequant::kv
