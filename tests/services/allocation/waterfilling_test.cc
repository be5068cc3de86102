#include "services/allocation/solver/waterfilling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "gtest/gtest.h"

namespace ratequant::allocation {
namespace {

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

double Marginal(const ExponentialCurve& curve, double width) {
  return curve.scale * std::log(curve.beta) * std::pow(curve.beta, -width);
}

TEST(WaterfillingTest, Theorem2WhereNoBoundIsMet) {
  const double beta = 3.56, mean_width = 4;
  std::mt19937 random(1);
  std::lognormal_distribution<double> weight(0, 0.5);
  std::vector<ExponentialCurve> curves;
  double mean_log = 0;
  for (int g = 0; g < 40; ++g) {
    curves.push_back({weight(random), beta});
    mean_log += std::log(curves.back().scale) / 40;
  }
  const std::vector<double> widths =
      FillWater(curves, 40 * mean_width, -100, 100);
  for (int g = 0; g < 40; ++g) {
    EXPECT_NEAR(
        widths[g],
        mean_width + (std::log(curves[g].scale) - mean_log) / std::log(beta),
        1e-9);
  }
}

TEST(WaterfillingTest, KktConditionsHoldWithBoundsAndUnlikeCurves) {
  std::mt19937 random(2);
  std::lognormal_distribution<double> weight(0, 3);
  for (int instance = 0; instance < 500; ++instance) {
    const int n = 1 + instance % 60;
    std::vector<ExponentialCurve> curves;
    for (int g = 0; g < n; ++g) {
      curves.push_back({weight(random), g % 2 == 0 ? 4.57 : 3.7});
    }
    const double lower = 1 + instance % 2, upper = 8 - instance % 3;
    const double total =
        n * (lower +
             (upper - lower) * std::uniform_real_distribution<>(0, 1)(random));
    const std::vector<double> widths = FillWater(curves, total, lower, upper);
    ASSERT_NEAR(Sum(widths), total, 1e-9 * total);
    // One multiplier: no group below its upper bound gains more per bit than
    // any group above its lower bound.
    double gain_if_raised = 0, loss_if_lowered = HUGE_VAL;
    for (int g = 0; g < n; ++g) {
      ASSERT_GE(widths[g], lower);
      ASSERT_LE(widths[g], upper);
      if (widths[g] < upper) {
        gain_if_raised =
            std::max(gain_if_raised, Marginal(curves[g], widths[g]));
      }
      if (widths[g] > lower) {
        loss_if_lowered =
            std::min(loss_if_lowered, Marginal(curves[g], widths[g]));
      }
    }
    ASSERT_LE(gain_if_raised, loss_if_lowered * (1 + 1e-9)) << instance;
  }
}

TEST(WaterfillingTest, BoundsClipAndTheRestIsSharedAgain) {
  // Without bounds the first would get more than 4.
  const std::vector<ExponentialCurve> curves = {
      {1e6, 4}, {1, 4}, {1, 4}, {1, 4}};
  const std::vector<double> widths = FillWater(curves, 10, 1, 4);
  EXPECT_DOUBLE_EQ(widths[0], 4);
  for (int g = 1; g < 4; ++g) EXPECT_NEAR(widths[g], 2, 1e-12);
}

TEST(WaterfillingTest, GroupsWithoutWeightStayLowAndTotalsOutOfRangeSaturate) {
  const std::vector<ExponentialCurve> curves = {{0, 4}, {1, 4}, {1, 4}};
  const std::vector<double> widths = FillWater(curves, 9, 1, 8);
  EXPECT_DOUBLE_EQ(widths[0], 1);
  EXPECT_NEAR(widths[1], 4, 1e-12);
  EXPECT_EQ(FillWater(curves, 100, 1, 8), std::vector<double>({8, 8, 8}));
  EXPECT_EQ(FillWater(curves, 0, 1, 8), std::vector<double>({1, 1, 1}));
  EXPECT_EQ(FillWater(curves, 20, 1, 8), std::vector<double>({4, 8, 8}));
}

}  // namespace
}  // namespace ratequant::allocation
