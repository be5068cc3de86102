// Running out of memory at every single allocation of pages, rings and sinks.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/kernels/cache/cache_case.h"

namespace {

// How many of the cache's allocations (the ones that may fail) still succeed;
// below zero: all.
std::atomic<int> allocations_left{-1};

bool MayAllocate() {
  return allocations_left < 0 || allocations_left.fetch_sub(1) > 0;
}

}  // namespace

// The forms of new that the cache takes its memory with, and their deletes.
void* operator new(std::size_t size, std::align_val_t alignment,
                   const std::nothrow_t&) noexcept {
  const std::size_t to = static_cast<std::size_t>(alignment);
  return MayAllocate() ? std::aligned_alloc(to, (size + to - 1) / to * to)
                       : nullptr;
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return MayAllocate() ? std::malloc(size) : nullptr;
}
void* operator new(std::size_t size) {
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}

namespace ratequant::kv {
namespace {

TEST(KvCacheMemory, RunningOutChangesNothingAndIsSurvived) {
  const auto cache = KvCache::Create(MixedConfig(32, 4, 20));
  ASSERT_TRUE(cache.ok());
  const Values keys = RandomValues(120, 1), values = RandomValues(120, 2);
  const auto id = (*cache)->AddSequence();
  ASSERT_TRUE(
      (*cache)->Append(id, 0, 9, Slice(keys, 0), Slice(values, 0)).ok());
  const Gathered before = GatherAll(**cache, id, 0);
  const int64_t bytes = *(*cache)->AllocatedBytes(id);

  int failures = 0;
  for (int allowed = 0;; ++allowed) {
    allocations_left = allowed;
    const absl::Status status =
        (*cache)->Append(id, 0, 111, Slice(keys, 9), Slice(values, 9));
    allocations_left = -1;
    if (status.ok()) break;
    ++failures;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(*(*cache)->Length(id, 0), 9);
    EXPECT_EQ(*(*cache)->AllocatedBytes(id), bytes);
    EXPECT_EQ(GatherAll(**cache, id, 0).keys.data, before.keys.data);
    // Pages taken before the failure went back; take them away again.
    (*cache)->ReleaseFreePages();
  }
  // Four pages and the four rings, which all grow.
  EXPECT_EQ(failures, 4 + 4);

  const auto fresh = KvCache::Create(MixedConfig(32, 4, 20));
  ASSERT_TRUE(fresh.ok());
  const auto other = (*fresh)->AddSequence();
  ASSERT_TRUE(
      (*fresh)->Append(other, 0, 120, Slice(keys, 0), Slice(values, 0)).ok());
  EXPECT_EQ(GatherAll(**cache, id, 0).keys.data,
            GatherAll(**fresh, other, 0).keys.data);
  EXPECT_EQ(GatherAll(**cache, id, 0).values.data,
            GatherAll(**fresh, other, 0).values.data);
}

TEST(KvCacheMemory, RunningOutOnTheFirstTokenLeavesAnEmptySequence) {
  const auto cache = KvCache::Create(MixedConfig(32, 4, 20));
  ASSERT_TRUE(cache.ok());
  const Values values = RandomValues(20, 1);
  const auto id = (*cache)->AddSequence();
  for (int allowed = 0; allowed < 3; ++allowed) {
    allocations_left = allowed;
    const absl::Status status =
        (*cache)->Append(id, 1, 20, Slice(values, 0), Slice(values, 0));
    allocations_left = -1;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(*(*cache)->AllocatedBytes(id), 0);
    (*cache)->ReleaseFreePages();
  }
}

}  // namespace
}  // namespace ratequant::kv
