#include "kernels/cache/half_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quantizers/number.h"

namespace ratequant::kv {
namespace {

// Rows of 8 channels, so that vector loops and their remainders are both used
// with several row counts.
constexpr int kDim = 8;

TEST(HalfRows, EveryFiniteHalfSurvivesATripThroughEveryDtype) {
  std::vector<uint16_t> halves;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7c00) != 0x7c00) halves.push_back(static_cast<uint16_t>(h));
  }
  const int64_t rows = static_cast<int64_t>(halves.size()) / kDim;
  std::vector<float> floats(halves.size());
  HalfToRows(halves.data(), rows, kDim, {floats.data(), DType::kFloat32, kDim});
  std::vector<uint16_t> back(halves.size());
  RowsToHalf({floats.data(), DType::kFloat32, kDim}, rows, kDim, back.data());
  EXPECT_EQ(back, halves);
  for (size_t i = 0; i < halves.size(); ++i) {
    ASSERT_EQ(floats[i], FloatOfHalf(halves[i])) << halves[i];
    ASSERT_EQ(std::signbit(floats[i]), (halves[i] & 0x8000) != 0);
  }
  RowsToHalf({halves.data(), DType::kFloat16, kDim}, rows, kDim, back.data());
  EXPECT_EQ(back, halves);
}

TEST(HalfRows, RoundsFloatsHalfToEven) {
  // Every fp16 magnitude, the midpoint above it, and that midpoint's
  // neighbours.
  std::vector<float> floats;
  for (uint16_t h = 0; h < 0x7bff; ++h) {
    const float low = FloatOfHalf(h), high = FloatOfHalf(h + 1);
    const float middle = 0.5f * (low + high);
    for (float value : {low, middle, std::nextafter(middle, 0.0f),
                        std::nextafter(middle, high)}) {
      floats.push_back(value);
      floats.push_back(-value);
    }
  }
  ASSERT_EQ(floats.size() % kDim, 0u);
  const int64_t rows = static_cast<int64_t>(floats.size()) / kDim;
  std::vector<uint16_t> halves(floats.size());
  RowsToHalf({floats.data(), DType::kFloat32, kDim}, rows, kDim, halves.data());
  for (size_t i = 0; i < floats.size(); ++i) {
    ASSERT_EQ(halves[i], HalfOfFloat(floats[i])) << floats[i];
  }
}

TEST(HalfRows, TakesMeansOffEveryDtypeAndPutsThemBack) {
  const std::vector<float> mean = {0.1f, -3.7f, 0, 50, -1e-4f, 7, 900, -0.5f};
  std::vector<float> floats(kDim);
  std::vector<uint16_t> halves(kDim), bfloats(kDim);
  for (int c = 0; c < kDim; ++c) {
    floats[c] = 1.7f * c - 3.3f;
    halves[c] = HalfOfFloat(floats[c]);
    bfloats[c] = BFloat16OfFloat(floats[c]);
  }
  const auto check = [&](const void* data, DType dtype, auto value) {
    std::vector<uint16_t> centred(kDim);
    RowsToHalf({data, dtype, kDim}, 1, kDim, centred.data(), mean.data());
    for (int c = 0; c < kDim; ++c) {
      EXPECT_EQ(centred[c], HalfOfFloat(value(c) - mean[c])) << c;
    }
  };
  check(floats.data(), DType::kFloat32, [&](int c) { return floats[c]; });
  check(halves.data(), DType::kFloat16,
        [&](int c) { return FloatOfHalf(halves[c]); });
  check(bfloats.data(), DType::kBFloat16,
        [&](int c) { return FloatOfBFloat16(bfloats[c]); });

  std::vector<float> sums(kDim);
  std::vector<uint16_t> half_sums(kDim), bfloat_sums(kDim);
  floats[6] = 65000.0f;  // with its mean more than fp16 holds
  AddMean(floats.data(), mean.data(), 1, kDim,
          {sums.data(), DType::kFloat32, kDim});
  AddMean(floats.data(), mean.data(), 1, kDim,
          {half_sums.data(), DType::kFloat16, kDim});
  AddMean(floats.data(), mean.data(), 1, kDim,
          {bfloat_sums.data(), DType::kBFloat16, kDim});
  for (int c = 0; c < kDim; ++c) {
    EXPECT_EQ(sums[c], floats[c] + mean[c]);
    EXPECT_EQ(half_sums[c], HalfOfFloat(sums[c]));
    EXPECT_EQ(bfloat_sums[c], BFloat16OfFloat(sums[c]));
  }
}

TEST(HalfRows, ConvertsEveryBFloatInRangeAndBack) {
  std::vector<uint16_t> bfloats;
  for (uint32_t b = 0; b < 0x10000; ++b) {
    if ((b & 0x7fff) <= 0x477f) bfloats.push_back(static_cast<uint16_t>(b));
  }
  const int64_t rows = static_cast<int64_t>(bfloats.size()) / kDim;
  std::vector<uint16_t> halves(bfloats.size()), back(bfloats.size());
  RowsToHalf({bfloats.data(), DType::kBFloat16, kDim}, rows, kDim,
             halves.data());
  HalfToRows(halves.data(), rows, kDim, {back.data(), DType::kBFloat16, kDim});
  for (size_t i = 0; i < bfloats.size(); ++i) {
    const float value = FloatOfBFloat16(bfloats[i]);
    ASSERT_EQ(halves[i], HalfOfFloat(value)) << value;
    ASSERT_EQ(back[i], BFloat16OfFloat(FloatOfHalf(halves[i]))) << value;
  }
}

TEST(HalfRows, HonoursTheRowStride) {
  const std::vector<float> rows = {1, 2,  3,  4,  5,  6,  7,  8,  -1, -1, -1,
                                   9, 10, 11, 12, 13, 14, 15, 16, -1, -1, -1};
  std::vector<uint16_t> halves(2 * kDim);
  RowsToHalf({rows.data(), DType::kFloat32, 11}, 2, kDim, halves.data());
  for (int i = 0; i < 2 * kDim; ++i) {
    EXPECT_EQ(FloatOfHalf(halves[i]), static_cast<float>(i + 1));
  }
  std::vector<float> out(22, -7);
  HalfToRows(halves.data(), 2, kDim, {out.data(), DType::kFloat32, 11});
  EXPECT_EQ(out[7], 8);
  EXPECT_EQ(out[8], -7);
  EXPECT_EQ(out[11], 9);
  EXPECT_EQ(out[18], 16);
  EXPECT_EQ(out[19], -7);
}

TEST(HalfRows, FindsValuesThatHalfCantHold) {
  const float inf = std::numeric_limits<float>::infinity();
  for (float bad : {NAN, -NAN, inf, -inf, 65505.0f, -65536.0f, 3e38f}) {
    for (int at = 0; at < 3 * kDim; ++at) {
      std::vector<float> rows(3 * kDim, 65504.0f);
      rows[at] = bad;
      const BadValue found =
          FindBadValue({rows.data(), DType::kFloat32, kDim}, 3, kDim);
      ASSERT_EQ(found.row, at / kDim) << bad;
      ASSERT_EQ(found.channel, at % kDim) << bad;
      ASSERT_TRUE(std::isnan(bad) ? std::isnan(found.value)
                                  : found.value == bad);
    }
  }
  const std::vector<float> good(3 * kDim, -65504.0f);
  EXPECT_EQ(FindBadValue({good.data(), DType::kFloat32, kDim}, 3, kDim).row,
            -1);
}

TEST(HalfRows, FindsBadValuesInBothSixteenBitFormats) {
  std::vector<uint16_t> rows(2 * kDim, 0x7bff);
  EXPECT_EQ(FindBadValue({rows.data(), DType::kFloat16, kDim}, 2, kDim).row,
            -1);
  rows[11] = 0xfc00;  // -Inf
  const BadValue half =
      FindBadValue({rows.data(), DType::kFloat16, kDim}, 2, kDim);
  EXPECT_EQ(half.row, 1);
  EXPECT_EQ(half.channel, 3);
  EXPECT_EQ(half.value, -std::numeric_limits<float>::infinity());

  rows.assign(2 * kDim, 0xc77f);  // -65280
  EXPECT_EQ(FindBadValue({rows.data(), DType::kBFloat16, kDim}, 2, kDim).row,
            -1);
  rows[1] = 0x4780;  // 65536
  const BadValue bfloat =
      FindBadValue({rows.data(), DType::kBFloat16, kDim}, 2, kDim);
  EXPECT_EQ(bfloat.row, 0);
  EXPECT_EQ(bfloat.channel, 1);
  EXPECT_EQ(bfloat.value, 65536.0f);
}

}  // namespace
}  // namespace ratequant::kv
