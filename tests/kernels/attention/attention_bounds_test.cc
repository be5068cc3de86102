// What attention from packed pages costs in accuracy, beside what quantization
// does: its error against fp64 over the dequantized rows, relative to the error
// that the quantizer's round trip makes in the same outputs.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/quantizers/element.h"
#include "tests/kernels/attention/attention_case.h"

namespace ratequant::kv {
namespace {

constexpr int kWidths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};

// Largest error, root mean square, in units of the round trip's: twice what was
// measured with either backend.
struct Bound {
  const char* quantizer;
  double at[std::size(kWidths)];
};
constexpr Bound kBounds[] = {
    {"rtn", {2e-6, 2e-6, 3e-6, 5e-6, 1.3e-5, 2.2e-5, 4e-5, 8e-5, 3e-3}},
    {"kivi", {2e-6, 4e-6, 8e-6, 1.7e-5, 3.5e-5, 6e-5, 1.2e-4, 2.4e-4, 3e-3}},
    {"quarot", {3e-6, 7e-6, 9e-6, 1.6e-5, 3e-5, 6e-5, 7e-5, 1.5e-4, 3e-3}},
    {"turboquant",
     {2e-6, 4e-6, 7e-6, 1.2e-5, 2.2e-5, 4e-5, 7e-5, 1.4e-4, 3e-3}},
};

template <class A>
double RootMeanSquareError(const std::vector<A>& a,
                           const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = static_cast<double>(a[i]) - b[i];
    sum += error * error;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

std::vector<double> Rounded(std::vector<double> values, DType dtype) {
  for (double& value : values) {
    uint16_t bits[2];
    StoreElement(static_cast<float>(value), bits, dtype, 0);
    value = LoadElement(bits, dtype, 0);
  }
  return values;
}

class AttentionBoundsTest : public testing::TestWithParam<Bound> {
 protected:
  static AttentionCase MakeCase(int width, DType dtype) {
    const GroupFormat format = {*ParseQuantizer(GetParam().quantizer), width};
    return AttentionCase({.head_dim = 128,
                          .group = 4,
                          .query_dtype = dtype,
                          .out_dtype = dtype,
                          .sequences = {{700, 1}, {300, 4}}},
                         {format, format});
  }
};

TEST_P(AttentionBoundsTest, ErrorIsFarBelowTheRoundTrips) {
  for (size_t i = 0; i < std::size(kWidths); ++i) {
    SCOPED_TRACE(kWidths[i]);
    AttentionCase test = MakeCase(kWidths[i], DType::kFloat32);
    test.Fill();
    const std::vector<double> stored = test.Reference(/*stored=*/true);
    const double round_trip =
        RootMeanSquareError(stored, test.Reference(/*stored=*/false));
    for (const Backend backend : {Backend::kSimd, Backend::kReference}) {
      EXPECT_LE(RootMeanSquareError(test.Run(backend), stored),
                GetParam().at[i] * round_trip);
    }
  }
}

// 16-bit outputs are the exact result rounded: nothing else is as large.
TEST_P(AttentionBoundsTest, SixteenBitOutputsAreRounded) {
  for (const int width : kWidths) {
    for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      SCOPED_TRACE(width);
      AttentionCase test = MakeCase(width, dtype);
      test.Fill();
      const std::vector<double> stored = test.Reference(/*stored=*/true);
      EXPECT_LE(RootMeanSquareError(test.Run(Backend::kSimd), stored),
                1.01 * RootMeanSquareError(Rounded(stored, dtype), stored));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionBoundsTest, testing::ValuesIn(kBounds),
                         [](const auto& info) {
                           return std::string(info.param.quantizer);
                         });

}  // namespace
}  // namespace ratequant::kv
