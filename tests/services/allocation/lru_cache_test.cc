#include "services/allocation/lru_cache.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ratequant::allocation {
namespace {

std::shared_ptr<const int> Int(int value) {
  return std::make_shared<const int>(value);
}

TEST(LruCacheTest, DropsTheLeastRecentlyUsedByWeight) {
  LruCache<int> cache(10);
  cache.Put("a", Int(1), 4);
  cache.Put("b", Int(2), 4);
  EXPECT_EQ(*cache.Get("a"), 1);  // now b is the oldest
  cache.Put("c", Int(3), 4);
  EXPECT_EQ(cache.Get("b"), nullptr);
  EXPECT_EQ(*cache.Get("a"), 1);
  EXPECT_EQ(*cache.Get("c"), 3);
}

TEST(LruCacheTest, ReplacingAndRemovingGiveTheWeightBack) {
  LruCache<int> cache(10);
  for (int i = 0; i < 100; ++i) cache.Put("a", Int(i), 9);
  EXPECT_EQ(*cache.Get("a"), 99);
  cache.Remove("a");
  cache.Remove("a");
  cache.Put("b", Int(1), 5);
  cache.Put("c", Int(2), 5);
  EXPECT_EQ(cache.statistics().entries(), 2);
}

TEST(LruCacheTest, WhatIsTooHeavyIsNotKeptAndDropsNothingElse) {
  LruCache<int> cache(10);
  cache.Put("a", Int(1), 5);
  cache.Put("big", Int(2), 11);
  EXPECT_EQ(cache.Get("big"), nullptr);
  EXPECT_EQ(*cache.Get("a"), 1);
}

TEST(LruCacheTest, AValueOutlivesItsPlaceInTheCache) {
  LruCache<int> cache(1);
  cache.Put("a", Int(1), 1);
  const auto held = cache.Get("a");
  cache.Put("b", Int(2), 1);
  EXPECT_EQ(*held, 1);
}

TEST(LruCacheTest, ThreadsMayShareIt) {
  LruCache<int> cache(50);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache] {
      for (int i = 0; i < 2000; ++i) {
        const std::string key = std::to_string(i % 100);
        cache.Put(key, Int(i % 100), 1);
        const auto value = cache.Get(key);
        if (value != nullptr) {
          EXPECT_EQ(std::to_string(*value), key);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(cache.statistics().entries(), 50);
}

}  // namespace
}  // namespace ratequant::allocation
