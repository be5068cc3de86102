#include "services/allocation/solver/baselines.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ratequant::allocation {
namespace {

using ::testing::ElementsAre;

TEST(BaselinesTest, UniformSpreadsAFractionEvenly) {
  // K from below, V from above: each head gets 5 bits for its pair.
  EXPECT_THAT(BaselineWidths(Baseline::kUniform, 20, 8),
              ElementsAre(2, 3, 3, 2, 2, 3, 3, 2));
  EXPECT_THAT(BaselineWidths(Baseline::kUniform, 24, 8),
              ElementsAre(3, 3, 3, 3, 3, 3, 3, 3));
  // An odd total: V has the odd bit.
  EXPECT_THAT(BaselineWidths(Baseline::kUniform, 13, 6),
              ElementsAre(2, 3, 2, 2, 2, 2));
}

TEST(BaselinesTest, KCeilVFloorRoundsKUpAndVDown) {
  EXPECT_THAT(BaselineWidths(Baseline::kKCeilVFloor, 20, 8),
              ElementsAre(3, 2, 3, 2, 3, 2, 3, 2));
  EXPECT_THAT(BaselineWidths(Baseline::kKCeilVFloor, 16, 8),
              ElementsAre(2, 2, 2, 2, 2, 2, 2, 2));
  // 2.25: K gets 2.5 on average; 2.75: K is at 3, V at 2.5.
  EXPECT_THAT(BaselineWidths(Baseline::kKCeilVFloor, 18, 8),
              ElementsAre(2, 2, 3, 2, 2, 2, 3, 2));
  EXPECT_THAT(BaselineWidths(Baseline::kKCeilVFloor, 22, 8),
              ElementsAre(3, 3, 3, 2, 3, 3, 3, 2));
}

TEST(BaselinesTest, EveryTotalIsMetWithNeighbouringWidths) {
  for (Baseline baseline : {Baseline::kUniform, Baseline::kKCeilVFloor}) {
    for (int groups : {2, 6, 90, 180}) {
      for (int64_t total = groups; total <= 8 * groups; ++total) {
        const std::vector<int> widths = BaselineWidths(baseline, total, groups);
        ASSERT_EQ(std::accumulate(widths.begin(), widths.end(), int64_t{0}),
                  total);
        for (int width : widths) {
          ASSERT_GE(width, total / groups);
          ASSERT_LE(width, (total + groups - 1) / groups);
        }
      }
    }
  }
}

}  // namespace
}  // namespace ratequant::allocation
