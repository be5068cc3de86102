#include "services/calibration/curve_fit.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ratequant::calibration {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const std::vector<int> kWidths = {1, 2, 3, 4, 5, 6, 7, 8};

// D(b) = alpha * beta^-b at kWidths.
std::vector<double> Exponential(double alpha, double beta) {
  std::vector<double> distortion;
  for (int b : kWidths) distortion.push_back(alpha * std::pow(beta, -b));
  return distortion;
}

// Far from exponential: R^2 is below 0.96.
std::vector<double> Staircase() { return {1, 1, 1, 1, 1, 0.01, 0.01, 0.01}; }

std::vector<double> Join(const std::vector<std::vector<double>>& rows) {
  std::vector<double> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

TEST(FitCurve, ReproducesThePaperFromTheLloydMaxDistortion) {
  // Table 8 (d = 128, unit variance), and Table 5's fit of it.
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6};
  const std::vector<double> mse = {.3634,   .1175,   .03455,
                                   .009501, .002512, .0007647};
  const auto fit = FitCurve(widths, mse);
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->alpha, 1.51, 0.005);
  EXPECT_NEAR(fit->beta, 3.56, 0.005);
  EXPECT_GT(fit->r2, 0.998);
}

TEST(FitCurve, RecoversAnExactExponential) {
  const auto fit = FitCurve(kWidths, Exponential(2.5, 4.25));
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->alpha, 2.5, 1e-12);
  EXPECT_NEAR(fit->beta, 4.25, 1e-12);
  EXPECT_NEAR(fit->r2, 1, 1e-12);
  EXPECT_LT(fit->max_residual, 1e-12);
  EXPECT_FALSE(fit->beta_replaced);
}

TEST(FitCurve, LooksOnlyAtWidths2To6) {
  std::vector<double> distortion = Exponential(1, 4);
  distortion[0] = 1e9;   // 1 bit
  distortion[6] = 1e9;   // 7 bits
  distortion[7] = 1e-9;  // 8 bits
  const auto fit = FitCurve(kWidths, distortion);
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->beta, 4, 1e-12);
}

TEST(FitCurve, LeavesOutWhatHasNoLogarithm) {
  std::vector<double> distortion = Exponential(1, 4);
  distortion[2] = 0;
  distortion[4] = std::numeric_limits<double>::infinity();
  const auto fit = FitCurve(kWidths, distortion);
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->beta, 4, 1e-12);
  distortion[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(FitCurve(kWidths, distortion).has_value());
}

TEST(FitCurve, ReportsTheLargestResidual) {
  std::vector<double> distortion = Exponential(1, 4);
  distortion[3] *= std::exp(0.1);
  const auto fit = FitCurve(kWidths, distortion);
  ASSERT_TRUE(fit.has_value());
  // The middle of five points: the line moves up by a fifth of the bump.
  EXPECT_NEAR(fit->max_residual, 0.08, 1e-9);
}

TEST(FitTable, FitsEveryGroupAndThePooledCurves) {
  // Two heads of one layer; K, V, K, V.
  const auto mse = Join({Exponential(1, 4), Exponential(2, 3),
                         Exponential(3, 4), Exponential(4, 3)});
  const TableFits fits = FitTable("kivi", kWidths, mse, 2);
  ASSERT_THAT(fits.groups, SizeIs(4));
  EXPECT_NEAR(fits.groups[2].alpha, 3, 1e-9);
  EXPECT_NEAR(fits.key.alpha, 2, 1e-9);
  EXPECT_NEAR(fits.key.beta, 4, 1e-9);
  EXPECT_NEAR(fits.value.alpha, 3, 1e-9);
  EXPECT_NEAR(fits.value.beta, 3, 1e-9);
  EXPECT_THAT(fits.warnings, IsEmpty());
}

TEST(FitTable, ReplacesBetaOfABadFitByTheSmallerOfFitAndMean) {
  const auto bad = FitCurve(kWidths, Staircase());
  ASSERT_TRUE(bad.has_value());
  ASSERT_LT(bad->r2, kMinR2);
  const double mean = (4 + bad->beta) / 2;
  ASSERT_LT(bad->beta, mean);
  const auto mse = Join(
      {Exponential(1, 4), Exponential(1, 4), Staircase(), Exponential(1, 4)});
  const TableFits fits = FitTable("kivi", kWidths, mse, 2);
  EXPECT_TRUE(fits.groups[2].beta_replaced);
  EXPECT_NEAR(fits.groups[2].beta, bad->beta, 1e-9);
  EXPECT_NEAR(fits.groups[2].r2, bad->r2, 1e-9);
  EXPECT_FALSE(fits.groups[0].beta_replaced);
  ASSERT_THAT(fits.warnings, testing::Not(IsEmpty()));
  EXPECT_THAT(fits.warnings[0],
              HasSubstr("kivi: 1 of 2 K groups fit worse than R^2 = 0.96"));
  EXPECT_THAT(fits.warnings[0], HasSubstr("layer 0, head 1"));
}

TEST(FitTable, RefitsAlphaForAReplacedBeta) {
  // A steep staircase beside flat curves: the mean is the smaller one.
  const std::vector<double> steep = {1, 1, 1, 1, 1, 1e-12, 1e-13, 1e-14};
  const auto mse =
      Join({Exponential(1, 1.5), Exponential(1, 4), steep, Exponential(1, 4),
            Exponential(1, 1.5), Exponential(1, 4)});
  const TableFits fits = FitTable("kivi", kWidths, mse, 3);
  const CurveFit& fit = fits.groups[2];
  ASSERT_TRUE(fit.beta_replaced);
  const double mean = (1.5 + FitCurve(kWidths, steep)->beta + 1.5) / 3;
  EXPECT_NEAR(fit.beta, mean, 1e-9);
  // Least squares with a fixed slope: residuals add up to zero.
  double sum = 0, largest = 0;
  for (int b = 2; b <= 6; ++b) {
    const double residual =
        std::log(steep[b - 1]) - std::log(fit.alpha) + b * std::log(fit.beta);
    sum += residual;
    largest = std::max(largest, std::abs(residual));
  }
  EXPECT_NEAR(sum, 0, 1e-9);
  EXPECT_NEAR(fit.max_residual, largest, 1e-9);
}

TEST(FitTable, GivesAGroupWithoutDistortionTheMeanBetaAndAWarning) {
  const auto mse = Join({Exponential(1, 4), Exponential(1, 3),
                         std::vector<double>(8, 0), Exponential(1, 3)});
  const TableFits fits = FitTable("rtn", kWidths, mse, 1);
  EXPECT_EQ(fits.groups[2].alpha, 0);
  EXPECT_NEAR(fits.groups[2].beta, 4, 1e-9);
  EXPECT_TRUE(fits.groups[2].beta_replaced);
  EXPECT_THAT(fits.warnings,
              ElementsAre(HasSubstr("1 of 2 K groups have no distortion to fit "
                                    "a curve to (first: layer 1, head 0)")));
}

TEST(FitTable, SaysThatATensorHasNoCurveAtAll) {
  const auto mse = Join({std::vector<double>(8, 0), Exponential(1, 3)});
  const TableFits fits = FitTable("rtn", kWidths, mse, 1);
  EXPECT_EQ(fits.key.alpha, 0);
  EXPECT_GT(fits.key.beta, 0);
  EXPECT_NEAR(fits.value.beta, 3, 1e-9);
  EXPECT_THAT(fits.warnings,
              testing::Contains(HasSubstr("the mean distortion of K is zero")));
}

}  // namespace
}  // namespace ratequant::calibration
