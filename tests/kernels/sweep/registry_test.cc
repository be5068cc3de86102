// Adding a quantizer to the sweep takes its header and its name in the
// registry: this program is the sweep of all backends, as it is, with the
// registry of one_more/ in front of the usual one.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/sweep/sweep_cases.h"

namespace ratequant::kv {
namespace {

constexpr int kDim = 40;  // lanes, vectors and groups that aren't full
constexpr int kTokens = 64;

DistortionSweep::Options MakeOptions(const SweepTarget& target) {
  DistortionSweep::Options options;
  options.layers = 1;
  options.kv_heads = 2;
  options.head_dim = kDim;
  options.widths = {1, 4, 7};
  options.quantizers.resize(2);
  options.quantizers[0].kind = QuantizerKind::kRtn;
  options.quantizers[1].kind = static_cast<QuantizerKind>(100);
  options.backend = target.backend;
  options.device = target.device;
  return options;
}

// The mean squared error of a head's values at `width`, by definition.
double ExpectedMse(const Capture& capture, int head, int sinks, int width) {
  const double unit = std::ldexp(1.0, -width);
  const float* const values =
      &capture.values[static_cast<size_t>(head) * kTokens * kDim];
  double sum = 0;
  for (int i = sinks * kDim; i < kTokens * kDim; ++i) {
    const double code =
        std::clamp(std::nearbyint(values[i] / unit), -1024.0, 1024.0);
    sum += (code * unit - values[i]) * (code * unit - values[i]);
  }
  return sum / ((kTokens - sinks) * kDim);
}

class OneMoreQuantizer : public testing::TestWithParam<SweepTarget> {};

TEST_P(OneMoreQuantizer, IsMeasuredByEveryBackend) {
  const DistortionSweep::Options options = MakeOptions(GetParam());
  const std::vector<Capture> captures =
      MakeCaptures(options, 1, kTokens, DType::kFloat32);
  const DistortionTables tables = Sweep(options, captures, DType::kFloat32);
  const DistortionTable& table = tables.tables[1];
  for (const Capture& capture : captures) {
    for (int head = 0; head < 2; ++head) {
      const size_t group = head * 2 + (capture.tensor == Tensor::kValue);
      for (size_t w = 0; w < options.widths.size(); ++w) {
        const double expected =
            ExpectedMse(capture, head, options.sink_tokens, options.widths[w]);
        EXPECT_NEAR(table.mse[group * 3 + w] / expected, 1.0, 1e-5);
      }
    }
  }
  ExpectWithinBounds(tables,
                     Sweep(MakeOptions({"", Backend::kReference, {}}), captures,
                           DType::kFloat32),
                     kDim);
}

INSTANTIATE_TEST_SUITE_P(Targets, OneMoreQuantizer,
                         testing::ValuesIn(SweepTargets()),
                         [](const auto& info) { return info.param.name; });

TEST(Registry, KindsThatItLacksAreRefused) {
  DistortionSweep::Options options = MakeOptions({});
  options.quantizers[1].kind = static_cast<QuantizerKind>(101);
  EXPECT_EQ(DistortionSweep::Create(options).status().message(),
            "quantizer kind 101 isn't one that the sweep measures");
}

}  // namespace

std::vector<SweepTarget> SweepTargets() {
  return {{"Reference", Backend::kReference, {}},
          {"Simd", Backend::kSimd, {}},
          {"Cuda", Backend::kSimd, {DeviceKind::kCuda, 0}}};
}

}  // namespace ratequant::kv
