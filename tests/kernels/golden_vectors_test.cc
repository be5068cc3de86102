// Against an independent implementation on a real K and a real V block. Its
// scales, zeros and norms were fp32, ours are fp16. That moves a value
//   - by rounding, at most 2^-11 (|zero| + range), where the code is the same;
//   - by one step where the code is another, which happens to a value within
//     that distance of a rounding boundary.
// So: all differences are below one step plus the rounding; the share of other
// codes is bounded by the rounding in steps; the mean squared error of the
// whole block differs little.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/uniform.h"
#include "kernels/reference/turboquant_row.h"
#include "ratequant/kv/codec.h"
#include "tests/kernels/codebook_test_util.h"
#include "tests/kernels/golden_npz.h"

namespace ratequant::kv {
namespace {

constexpr int kTokens = 32;
constexpr int kDim = 64;

using Rows = std::vector<float>;  // [kTokens, kDim]

std::string SharedFolder() {
  const char* folder = std::getenv("RATEQUANT_SHARED");
  return folder != nullptr ? folder : "../shared";
}

double MeanSquare(const Rows& a, const Rows& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
  }
  return sum / a.size();
}

// y = x M, or x M^T, in double.
Rows Times(const Rows& x, const Rows& matrix, bool transposed) {
  Rows y(x.size());
  for (int t = 0; t < kTokens; ++t) {
    for (int j = 0; j < kDim; ++j) {
      double sum = 0;
      for (int i = 0; i < kDim; ++i) {
        sum += double(x[t * kDim + i]) *
               matrix[transposed ? j * kDim + i : i * kDim + j];
      }
      y[t * kDim + j] = static_cast<float>(sum);
    }
  }
  return y;
}

class GoldenTest : public testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  void SetUp() override {
    const std::string path = SharedFolder() + "/reference/quantizer_golden.npz";
    auto arrays = ReadNpz(path);
    if (!arrays) GTEST_SKIP() << "no golden vectors at " << path;
    arrays_ = *std::move(arrays);
    tensor_ = std::get<0>(GetParam());
    width_ = std::get<1>(GetParam());
    x_ = Array(absl::StrCat("in_", tensor_));
    ASSERT_EQ(x_.size(), size_t{kTokens * kDim});
  }

  const Rows& Array(const std::string& name) const {
    const auto array = arrays_.find(name);
    if (array == arrays_.end()) {
      ADD_FAILURE() << "no array " << name;
      static const Rows kEmpty(kTokens * kDim);
      return kEmpty;
    }
    return array->second;
  }

  Rows Golden(const std::string& quantizer) const {
    return Array(absl::StrCat(quantizer, "_", tensor_, "_", width_));
  }

  // The number of values in `actual` and `golden` with different codes must be
  // explained by fp16 rounding. `low` and `range` are those of the value's
  // quantization range, element by element.
  void ExpectUniformMatch(const Rows& actual, const Rows& golden,
                          const Rows& low, const Rows& range) const {
    const double eps = 0x1p-11;
    double expected_moved = 0;
    int moved = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double step = range[i] / MaxCode(width_);
      const double rounding = eps * (std::fabs(low[i]) + range[i]) + 1e-5;
      const double difference = std::fabs(double(actual[i]) - golden[i]);
      EXPECT_LE(difference, step + rounding) << i;
      if (difference > rounding) ++moved;
      expected_moved += std::min(1.0, 2 * rounding / step);
    }
    EXPECT_LE(moved, expected_moved + 8);
  }

  std::map<std::string, Rows> arrays_;
  std::string tensor_;
  int width_ = 0;
  Rows x_;
};

TEST_P(GoldenTest, Kivi) {
  const Tensor tensor = tensor_ == "k" ? Tensor::kKey : Tensor::kValue;
  const auto codec = Codec::Create(
      {QuantizerSpec(), tensor, width_, kDim, kTokens, Backend::kSimd});
  ASSERT_TRUE(codec.ok()) << codec.status();
  std::vector<uint8_t> section((*codec)->layout().section_bytes);
  Rows decoded(x_.size());
  ASSERT_TRUE((*codec)
                  ->Encode({x_.data(), DType::kFloat32, kDim}, 0, kTokens, 0,
                           absl::MakeSpan(section))
                  .ok());
  ASSERT_TRUE(
      (*codec)
          ->Decode(section, 0, kTokens, {decoded.data(), DType::kFloat32, kDim})
          .ok());

  Rows low(x_.size()), range(x_.size());
  for (int i = 0; i < kTokens * kDim; ++i) {
    float min = x_[i], max = x_[i];
    for (int k = 0; k < 32; ++k) {
      const float v =
          tensor_ == "k" ? x_[k * kDim + i % kDim] : x_[i / 32 * 32 + k];
      min = std::min(min, v);
      max = std::max(max, v);
    }
    low[i] = min;
    range[i] = max - min;
  }
  ExpectUniformMatch(decoded, Golden("kivi"), low, range);
  EXPECT_NEAR(MeanSquare(decoded, x_) / MeanSquare(Golden("kivi"), x_), 1.0,
              width_ <= 6 ? 0.01 : 0.06);
}

// The golden rotation is ours with its own signs.
TEST_P(GoldenTest, Quarot) {
  const Rows& signs = Array("sign");
  Rows rotated = x_, decoded(x_.size()), low(x_.size()), range(x_.size());
  Rows back;
  for (int t = 0; t < kTokens; ++t) {
    float* const row = &rotated[t * kDim];
    Rotate(signs.data(), row, kDim);
    const float min = *std::min_element(row, row + kDim);
    const float max = *std::max_element(row, row + kDim);
    const float scale = AsymmetricScale(min, max, width_);
    const float zero = AsymmetricZero(min);
    for (int i = t * kDim; i < (t + 1) * kDim; ++i) {
      decoded[i] = AsymmetricValue(
          AsymmetricCode(rotated[i], zero, ReciprocalOrZero(scale), width_),
          zero, scale);
      low[i] = min;
      range[i] = max - min;
    }
  }
  const Rows exact = Times(x_, Array("had"), false);
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_NEAR(rotated[i], exact[i], 2e-5) << i;
  }
  ExpectUniformMatch(decoded, Times(Golden("quarot"), Array("had"), false), low,
                     range);
  back = decoded;
  for (int t = 0; t < kTokens; ++t) {
    RotateBack(signs.data(), &back[t * kDim], kDim);
  }
  EXPECT_NEAR(MeanSquare(back, x_) / MeanSquare(Golden("quarot"), x_), 1.0,
              width_ <= 6 ? 0.01 : 0.06);
}

// Given its codebook and rotation, only the norm's fp16 rounding differs.
TEST_P(GoldenTest, Turboquant) {
  const Codebook codebook =
      MakeCodebook(kDim, width_, Array(absl::StrCat("codebook_", width_)));
  const Rows rotated = Times(x_, Array("rot"), false);
  const Rows golden = Times(Golden("turbo"), Array("rot"), false);
  Rows decoded(x_.size());
  int moved = 0;
  for (int t = 0; t < kTokens; ++t) {
    Rows squares;
    for (int c = 0; c < kDim; ++c) {
      squares.push_back(x_[t * kDim + c] * x_[t * kDim + c]);
    }
    const TurboquantRow row = EncodeTurboquant(
        codebook, RowScale::kL2, FoldSum(squares.data(), kDim),
        {rotated.begin() + t * kDim, rotated.begin() + (t + 1) * kDim});
    for (int c = 0; c < kDim; ++c) {
      const int i = t * kDim + c;
      decoded[i] = codebook.units[row.codes[c]] * row.scale;
      if (std::fabs(decoded[i] - golden[i]) >
          0x1p-11 * std::fabs(golden[i]) + 1e-5) {
        ++moved;
      }
    }
  }
  // A coordinate on a threshold may fall to either side.
  EXPECT_LE(moved, 2);
  EXPECT_NEAR(MeanSquare(decoded, rotated) / MeanSquare(golden, rotated), 1.0,
              width_ <= 6 ? 0.005 : 0.03);
}

// The golden codebook was left 2e-5 short of the fixed point. From 6 bits on
// that is as much as half a cell, while the error it is for hardly changes.
TEST_P(GoldenTest, Codebook) {
  const Rows& golden = Array(absl::StrCat("codebook_", width_));
  const Codebook& codebook = GetCodebook(kDim, width_);
  ASSERT_EQ(codebook.levels.size(), golden.size());
  if (width_ <= 5) {
    const double tolerance[] = {.0005, .0008, .0012, .0016, .003};
    for (size_t i = 0; i < golden.size(); ++i) {
      EXPECT_NEAR(codebook.levels[i], golden[i], tolerance[width_ - 1]) << i;
    }
  }
  const double ours = MeanSquaredError(codebook);
  const double theirs = MeanSquaredError(MakeCodebook(kDim, width_, golden));
  EXPECT_LE(ours, theirs * 1.001);
  EXPECT_GE(ours, theirs * 0.998);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Combine(testing::Values("k", "v"),
                                          testing::Range(1, 9)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param),
                                               std::get<1>(info.param));
                         });

}  // namespace
}  // namespace ratequant::kv
