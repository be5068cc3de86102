#include "kernels/cpu/byte_split.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace ratequant::kv {
namespace {

std::vector<int> Split(const std::vector<int64_t>& head_bytes) {
  std::vector<int> splits(head_bytes.size());
  SplitByBytes(head_bytes, absl::MakeSpan(splits));
  return splits;
}

TEST(SplitByBytesTest, ShortSequencesStayWhole) {
  EXPECT_EQ(Split({0, 1, kMinSplitBytes}), (std::vector<int>{1, 1, 1}));
}

TEST(SplitByBytesTest, PartsAreAtMostTheSmallestSize) {
  EXPECT_EQ(Split({kMinSplitBytes + 1, 2 * kMinSplitBytes, 0}),
            (std::vector<int>{2, 2, 1}));
}

TEST(SplitByBytesTest, HeadsOfMoreBitsGetMoreParts) {
  // 2, 4 and 6 bits of a long sequence.
  EXPECT_EQ(Split({2 << 20, 4 << 20, 6 << 20}), (std::vector<int>{8, 16, 24}));
}

TEST(SplitByBytesTest, PartsOfMixedHeadsAreAlike) {
  const std::vector<int64_t> bytes = {3 << 20, 17 << 20, 5 << 20, 1 << 20,
                                      9 << 20, 30 << 20, 7 << 20, 2 << 20};
  const int64_t total = std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
  const int64_t mean = total / (bytes.size() * kMaxMeanSplits);
  const std::vector<int> splits = Split(bytes);
  for (size_t h = 0; h < bytes.size(); ++h) {
    EXPECT_LE(bytes[h] / splits[h], mean + 1) << h;
    EXPECT_GE(bytes[h] / splits[h], mean / 2) << h;
  }
}

TEST(SplitByBytesTest, TheNumberOfPartsIsBounded) {
  for (const int heads : {1, 2, 7, 64}) {
    for (const int64_t bytes :
         {int64_t{1} << 16, int64_t{1} << 24, int64_t{1} << 40}) {
      std::vector<int64_t> head_bytes(heads, 1);
      head_bytes.back() = bytes;
      const std::vector<int> splits = Split(head_bytes);
      EXPECT_LE(std::accumulate(splits.begin(), splits.end(), 0),
                MaxSplits(heads));
      if (heads > 1) {
        EXPECT_EQ(splits.front(), 1);
      }
    }
  }
}

TEST(PartOfTest, PartsFollowEachOtherAndDifferByOnePage) {
  const PageRange pages = {5, 5 + 103};
  int next = pages.begin;
  for (int i = 0; i < 10; ++i) {
    const PageRange part = PartOf(pages, 10, i);
    EXPECT_EQ(part.begin, next);
    EXPECT_GE(part.end - part.begin, 10);
    EXPECT_LE(part.end - part.begin, 11);
    next = part.end;
  }
  EXPECT_EQ(next, pages.end);
}

}  // namespace
}  // namespace ratequant::kv
