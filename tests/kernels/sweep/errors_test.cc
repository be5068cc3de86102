// What a sweep refuses, and how it says so, on every target that the program
// has.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "tests/kernels/sweep/sweep_cases.h"

namespace ratequant::kv {
namespace {

constexpr int kLayers = 2;  // of MakeSweepOptions
constexpr int kHeads = 3;

class SweepErrorTest : public testing::TestWithParam<SweepTarget> {
 protected:
  SweepErrorTest()
      : values_(kHeads * 64 * 64, 1.5f), gradients_(values_.size(), 1e-3f) {
    sweep_ = *DistortionSweep::Create(MakeSweepOptions(64, GetParam(), 2));
  }

  absl::Status Add(int layer, Tensor tensor, int tokens = 64) {
    return sweep_->Add(layer, tensor, tokens, values_.data(), gradients_.data(),
                       DType::kFloat32);
  }

  void AddEverything() {
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(Add(layer, Tensor::kKey).ok());
      ASSERT_TRUE(Add(layer, Tensor::kValue).ok());
    }
  }

  static size_t At(int head, int token, int channel) {
    return (size_t(head) * 64 + token) * 64 + channel;
  }

  std::vector<float> values_;
  std::vector<float> gradients_;
  std::unique_ptr<DistortionSweep> sweep_;
};

TEST_P(SweepErrorTest, BadNumbersAreNamedAndNothingIsAdded) {
  AddEverything();
  const auto before = sweep_->Finish();
  ASSERT_TRUE(before.ok());
  const float inf = std::numeric_limits<float>::infinity();
  struct Case {
    bool gradient;
    float bad;
    const char* message;
  };
  for (const Case& c :
       {Case{false, NAN,
             "NaN in the values of V, layer 1, head 2, token 37, "
             "channel 63"},
        Case{false, -inf,
             "-Inf in the values of V, layer 1, head 2, token 37, "
             "channel 63"},
        Case{false, 65520.0f,
             "65520, beyond fp16's 65504, in the values of V, "
             "layer 1, head 2, token 37, channel 63"},
        Case{true, NAN,
             "NaN in the gradient of V, layer 1, head 2, token 37, "
             "channel 63"},
        Case{true, inf,
             "Inf in the gradient of V, layer 1, head 2, token 37, "
             "channel 63"}}) {
    float& place = (c.gradient ? gradients_ : values_)[At(2, 37, 63)];
    const float good = place;
    place = c.bad;
    const absl::Status status = Add(1, Tensor::kValue);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(), c.message);
    place = good;
  }
  gradients_[At(0, 0, 0)] = 1e30f;  // large gradients are fine
  const auto after = sweep_->Finish();
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->g2, before->g2);
  EXPECT_EQ(after->tables[0].c1, before->tables[0].c1);
  EXPECT_TRUE(Add(1, Tensor::kValue).ok());
}

TEST_P(SweepErrorTest, BadNumberInASinkIsAnErrorToo) {
  values_[At(1, 2, 3)] = NAN;
  EXPECT_EQ(Add(0, Tensor::kKey).message(),
            "NaN in the values of K, layer 0, head 1, token 2, channel 3");
}

TEST_P(SweepErrorTest, BadCallsAreRefused) {
  EXPECT_EQ(Add(2, Tensor::kKey).message(),
            "layer 2 isn't one of the 2 layers");
  EXPECT_EQ(Add(-1, Tensor::kKey).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Add(0, static_cast<Tensor>(2)).message(),
            "tensor 2 isn't supported; supported: 0 (K), 1 (V)");
  EXPECT_EQ(Add(0, Tensor::kKey, 48).message(),
            "48 tokens aren't supported; supported: multiples of 32 above the "
            "4 sink tokens");
  EXPECT_EQ(Add(0, Tensor::kKey, 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      sweep_->Add(0, Tensor::kKey, 64, values_.data(), nullptr, DType::kFloat32)
          .message(),
      "gradients is null");
  EXPECT_EQ(sweep_
                ->Add(0, Tensor::kKey, 64, values_.data(), gradients_.data(),
                      static_cast<DType>(3))
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(SweepErrorTest, MissingGroupIsAPrecondition) {
  EXPECT_EQ(sweep_->Finish().status().message(),
            "nothing was added for K of layer 0");
  ASSERT_TRUE(Add(0, Tensor::kKey).ok());
  ASSERT_TRUE(Add(0, Tensor::kValue).ok());
  ASSERT_TRUE(Add(1, Tensor::kKey).ok());
  const absl::Status status = sweep_->Finish().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "nothing was added for V of layer 1");
}

TEST_P(SweepErrorTest, UnequalTokensAreAPrecondition) {
  AddEverything();
  ASSERT_TRUE(Add(1, Tensor::kKey, 32).ok());
  const absl::Status status = sweep_->Finish().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "K of layer 1 got 88 tokens besides sinks, K of layer 0 60");
}

TEST_P(SweepErrorTest, AllZeroTensorIsDataLoss) {
  AddEverything();
  sweep_ = *DistortionSweep::Create(MakeSweepOptions(64, GetParam(), 1));
  ASSERT_TRUE(Add(0, Tensor::kKey).ok());
  ASSERT_TRUE(Add(0, Tensor::kValue).ok());
  ASSERT_TRUE(Add(1, Tensor::kValue).ok());
  values_.assign(values_.size(), 0.0f);
  for (int head = 0; head < kHeads; ++head) values_[At(head, 3, 0)] = 1.0f;
  ASSERT_TRUE(Add(1, Tensor::kKey).ok());  // only a sink isn't zero
  const absl::Status status = sweep_->Finish().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "all values of K of layer 1 are zero");
}

TEST_P(SweepErrorTest, ZeroGradientOfAHeadIsAllowed) {
  for (int i = 0; i < 64 * 64; ++i) gradients_[At(1, 0, 0) + i] = 0.0f;
  AddEverything();
  const auto tables = sweep_->Finish();
  ASSERT_TRUE(tables.ok()) << tables.status();
  EXPECT_EQ(tables->g2[2], 0.0);
  EXPECT_EQ(tables->tables[1].c2[2 * 8 + 1], 0.0);
  EXPECT_GT(tables->g2[0], 0.0);
}

INSTANTIATE_TEST_SUITE_P(Targets, SweepErrorTest,
                         testing::ValuesIn(SweepTargets()),
                         [](const auto& info) { return info.param.name; });

void ExpectRefused(const DistortionSweep::Options& options,
                   const std::string& message) {
  const auto sweep = DistortionSweep::Create(options);
  EXPECT_EQ(sweep.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sweep.status().message(), message);
}

TEST(SweepOptions, WhatIsNotSupportedIsNamed) {
  const DistortionSweep::Options good = MakeSweepOptions(64, {}, 0);
  DistortionSweep::Options bad = good;
  bad.layers = 0;
  ExpectRefused(bad, "layers 0 isn't supported; supported: 1 and above");
  bad = good;
  bad.kv_heads = -2;
  ExpectRefused(bad, "kv_heads -2 isn't supported; supported: 1 and above");
  bad = good;
  bad.widths = {2, 9};
  ExpectRefused(bad, "width 9 isn't supported; supported: 1 to 8 bits");
  bad.widths = {4, 4};
  ExpectRefused(bad,
                "width 4 comes after 4; widths must be ascending, each once");
  bad = good;
  bad.quantizers.clear();
  ExpectRefused(bad, "no quantizer to sweep");
  bad = good;
  bad.head_dim = 80;
  ExpectRefused(bad,
                "head_dim 80 isn't supported by kivi with group_size 32; "
                "supported: multiples of the group size");
  bad = good;
  bad.sink_tokens = -1;
  ExpectRefused(bad, "sink_tokens -1 is negative");
  bad = good;
  bad.threads = -1;
  ExpectRefused(bad, "threads -1 is negative");
}

}  // namespace
}  // namespace ratequant::kv
