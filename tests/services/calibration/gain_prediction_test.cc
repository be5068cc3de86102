#include "services/calibration/gain_prediction.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace ratequant::calibration {
namespace {

TEST(GainPrediction, IsTheRatioOfMeansWhereNoGroupMeetsABound) {
  const std::vector<double> weights = {1, 4, 16, 0};
  EXPECT_DOUBLE_EQ(ArithmeticOverGeometricMean(weights), 7.0 / 4);
  for (double bits : {2.5, 3.0, 5.0}) {
    EXPECT_NEAR(PredictGain(weights, 4, bits), 7.0 / 4, 1e-12) << bits;
  }
}

TEST(GainPrediction, IsLessWhereAGroupMeetsABound) {
  // At beta 4 the widths would be 0, 2 and 4; the lowest is 1, and the others
  // have 1 less to share: 1, 1.5 and 3.5.
  const std::vector<double> weights = {1, 16, 256};
  const double uniform = (1 + 16 + 256) / std::pow(4, 2);
  const double allocated =
      1 / 4.0 + 16 / std::pow(4, 1.5) + 256 / std::pow(4, 3.5);
  EXPECT_NEAR(PredictGain(weights, 4, 2), uniform / allocated, 1e-12);
  EXPECT_LT(PredictGain(weights, 4, 2), ArithmeticOverGeometricMean(weights));
}

TEST(GainPrediction, IsOneWhereThereIsNothingToGain) {
  EXPECT_DOUBLE_EQ(ArithmeticOverGeometricMean({3, 3, 3}), 1);
  EXPECT_NEAR(PredictGain({3, 3, 3}, 4, 3), 1, 1e-12);
  EXPECT_EQ(PredictGain({1, 100}, 1, 3), 1);
  // All at the lowest width.
  EXPECT_NEAR(PredictGain({1, 100}, 4, 1), 1, 1e-12);
}

TEST(GainPrediction, IsNothingWithoutWeights) {
  EXPECT_EQ(ArithmeticOverGeometricMean({}), 0);
  EXPECT_EQ(ArithmeticOverGeometricMean({0, 0}), 0);
  EXPECT_EQ(PredictGain({0, 0}, 4, 3), 0);
}

}  // namespace
}  // namespace ratequant::calibration
