// The trellis and the gains of tcq: what the code is, that the search finds the
// best path, and what its codebooks are worth.

#include "kernels/quantizers/trellis.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/trellis_codebook.h"
#include "kernels/reference/tcq_row.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

// A row of `dim` numbers whose squares sum up to `dim`.
std::vector<float> UnitRow(TestRandom& random, int dim) {
  std::vector<float> row(dim);
  double square = 0;
  for (float& x : row) {
    x = random.Normal();
    square += double(x) * x;
  }
  for (float& x : row) x *= static_cast<float>(std::sqrt(dim / square));
  return row;
}

struct Path {
  std::vector<uint8_t> codes;
  std::vector<uint8_t> levels;
  double cost = 0;
};

Path FindPath(const std::vector<float>& z, int width) {
  const int dim = static_cast<int>(z.size());
  const std::vector<float>& levels = GetTrellisCodebook(dim, width).levels;
  Path path = {std::vector<uint8_t>(dim), std::vector<uint8_t>(dim)};
  std::vector<uint16_t> decisions(dim);
  TrellisPath(z.data(), 1, dim, width, levels.data(), decisions.data())
      .Find([&](int i, int code, int level) {
        path.codes[i] = static_cast<uint8_t>(code);
        path.levels[i] = static_cast<uint8_t>(level);
        path.cost += std::pow(double(z[i]) - levels[level], 2);
      });
  return path;
}

TEST(Trellis, IsUngerboecksCode) {
  // Octal 23 and 04: powers of the delay.
  const std::vector<int> h0 = {0, 1, 4}, h1 = {2};
  for (unsigned window = 0; window < 2 * kTrellisStates; ++window) {
    unsigned first = 0, second = 0;
    for (const int k : h0) first ^= window >> k & 1;
    for (const int k : h1) second ^= window >> k & 1;
    EXPECT_EQ(TrellisSubset(window), static_cast<int>(2 * first + second));
  }
}

// All codes of a row of 8: none of those that pass the cut in the same state
// costs less.
void ExpectBestPath(int width, TestRandom& random) {
  constexpr int kDim = 8;
  const std::vector<float>& levels = GetTrellisCodebook(kDim, width).levels;
  const std::vector<float> z = UnitRow(random, kDim);
  const Path path = FindPath(z, width);
  const auto state = [&](const auto& codes) {
    unsigned bits = 0;
    for (int k = 0; k < kTrellisMemory; ++k) {
      bits |= (codes[kDim - 1 - k] & 1u) << k;
    }
    return bits;
  };
  double best = std::numeric_limits<double>::infinity();
  for (uint32_t row = 0; row < 1u << (kDim * width); ++row) {
    std::array<uint8_t, kDim> codes;
    std::array<uint8_t, kDim> packed = {};
    for (int i = 0; i < kDim; ++i) {
      codes[i] = row >> (i * width) & ((1 << width) - 1);
    }
    if (state(codes) != state(path.codes)) continue;
    PackCodes(codes.data(), width, kDim, packed.data());
    double cost = 0;
    for (int i = 0; i < kDim; ++i) {
      const int level = TrellisLevelAt(packed.data(), width, kDim, i);
      cost += std::pow(double(z[i]) - levels[level], 2);
    }
    best = std::min(best, cost);
  }
  EXPECT_NEAR(path.cost, best, 1e-5);
}

TEST(Trellis, ThePathIsTheBestThroughItsState) {
  TestRandom random(1);
  for (int trial = 0; trial < 20; ++trial) {
    ExpectBestPath(1, random);
    ExpectBestPath(2, random);
  }
}

class TrellisWidth : public testing::TestWithParam<int> {};

// The decoder sees the levels that the search meant.
TEST_P(TrellisWidth, IndexesAreThoseOfTheSearch) {
  const int width = GetParam();
  TestRandom random(2);
  for (const int dim : {8, 16, 64, 512}) {
    const Path path = FindPath(UnitRow(random, dim), width);
    std::vector<uint8_t> packed(BytesOfCodes(width, dim));
    PackCodes(path.codes.data(), width, dim, packed.data());
    for (int i = 0; i < dim; ++i) {
      EXPECT_EQ(TrellisLevelAt(packed.data(), width, dim, i), path.levels[i]);
    }
  }
}

// Each level is the mean of what is coded by it, on rows that it wasn't made
// from; and the error is that of the trellis: a scalar codebook of the width
// has .363, .1175, .0345, .0095.
TEST_P(TrellisWidth, LevelsAreMeansOfWhatTheyCode) {
  const int width = GetParam();
  constexpr int kDim = 128, kRows = 2000;
  const std::vector<float>& levels = GetTrellisCodebook(kDim, width).levels;
  ASSERT_EQ(levels.size(), size_t{2} << width);
  std::vector<double> sums(levels.size()), squares(levels.size());
  std::vector<int> counts(levels.size());
  TestRandom random(3);
  double cost = 0;
  for (int r = 0; r < kRows; ++r) {
    const std::vector<float> z = UnitRow(random, kDim);
    const Path path = FindPath(z, width);
    cost += path.cost / kDim / kRows;
    for (int i = 0; i < kDim; ++i) {
      const int level = path.levels[i];
      sums[level] += z[i];
      squares[level] += double(z[i]) * z[i];
      ++counts[level];
    }
  }
  for (size_t k = 0; k < levels.size(); ++k) {
    ASSERT_GT(counts[k], 20) << k;
    const double mean = sums[k] / counts[k];
    const double spread = std::sqrt(
        std::max(0.0, squares[k] / counts[k] - mean * mean) / counts[k]);
    // Neighbouring elements aren't independent, the outermost levels are rare.
    EXPECT_NEAR(levels[k], mean, 6 * spread + 0.01) << k;
    EXPECT_EQ(levels[k], -levels[levels.size() - 1 - k]);
  }
  const double expected[] = {.2952, .0828, .0226, .00607};
  EXPECT_NEAR(cost / expected[width - 1], 1.0, 0.03);
}

INSTANTIATE_TEST_SUITE_P(Widths, TrellisWidth, testing::Range(1, 5));

TEST(Gain, CodesAreEighthsOfAnOctave) {
  EXPECT_EQ(GainOfCode(0), 0.0f);
  EXPECT_EQ(GainOfCode(1), 0x1p-11f);
  for (int code = 1; code <= kMaxGainCode; ++code) {
    EXPECT_NEAR(std::log2(GainOfCode(code)), -11 + (code - 1) / 8.0, 1e-6);
    EXPECT_EQ(CodeOfGain(GainOfCode(code)), code);
  }
  // Any row of fp16 numbers.
  EXPECT_GT(GainOfCode(kMaxGainCode), std::sqrt(512.0) * 65504);
}

TEST(Gain, IsTheNextInTheLogarithm) {
  TestRandom random(4);
  for (int trial = 0; trial < 10000; ++trial) {
    const float value = std::exp2(-11.0f + 31.0f * random.Uniform());
    const float gain = GainOfCode(CodeOfGain(value));
    EXPECT_LE(std::fabs(std::log2(gain / value)), 1.0 / 16 + 1e-6) << value;
  }
  EXPECT_EQ(CodeOfGain(0.0f), 0);
  EXPECT_EQ(CodeOfGain(0x1p-13f), 0);
  EXPECT_EQ(CodeOfGain(0x1p-12f), 1);
  EXPECT_EQ(CodeOfGain(1e30f), kMaxGainCode);
}

}  // namespace
}  // namespace ratequant::kv
