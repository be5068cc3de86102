// The sweep measures exactly what a round trip through the codec loses.

#include "ratequant/kv/distortion.h"

#include <gtest/gtest.h>

#include <limits>

#include "hwy/targets.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

constexpr int kLayers = 2;
constexpr int kHeads = 3;

// One Add call: values and gradients of a layer's K or V.
struct Capture {
  int layer;
  Tensor tensor;
  int tokens;
  std::vector<float> values;  // [kHeads, tokens, dim]
  std::vector<float> gradients;
};

std::vector<float> RoundAs(std::vector<float> values, DType dtype) {
  for (float& value : values) {
    uint8_t bytes[4];
    StoreElement(value, bytes, dtype, 0);
    value = LoadElement(bytes, dtype, 0);
  }
  return values;
}

std::vector<Capture> MakeCaptures(int dim, int tokens, DType dtype) {
  std::vector<Capture> captures;
  for (int sequence = 0; sequence < 2; ++sequence) {
    for (int layer = kLayers; layer-- > 0;) {
      for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
        const uint64_t seed = captures.size() + 100;
        TestRandom random(seed * 77);
        Capture capture = {layer, tensor, tokens, {}, {}};
        for (int i = 0; i < kHeads * tokens * dim; ++i) {
          capture.values.push_back(random.Normal() *
                                   (i % 11 == 3 ? 20.0f : 1.0f));
          capture.gradients.push_back(random.Normal() * 1e-3f);
        }
        capture.values = RoundAs(capture.values, dtype);
        capture.gradients = RoundAs(capture.gradients, dtype);
        captures.push_back(std::move(capture));
      }
    }
  }
  return captures;
}

DistortionSweep::Options MakeOptions(int dim, Backend backend, int threads) {
  DistortionSweep::Options options;
  options.layers = kLayers;
  options.kv_heads = kHeads;
  options.head_dim = dim;
  options.quantizers = QuantizersFor(dim, 32);
  options.threads = threads;
  options.backend = backend;
  return options;
}

DistortionTables Sweep(const DistortionSweep::Options& options,
                       const std::vector<Capture>& captures, DType dtype) {
  auto sweep = DistortionSweep::Create(options);
  EXPECT_TRUE(sweep.ok()) << sweep.status();
  for (const Capture& c : captures) {
    const int dim = options.head_dim;
    const absl::Status status = (*sweep)->Add(
        c.layer, c.tensor, c.tokens, StoreAs(c.values, dtype, dim, dim).data(),
        StoreAs(c.gradients, dtype, dim, dim).data(), dtype);
    EXPECT_TRUE(status.ok()) << status;
  }
  auto tables = (*sweep)->Finish();
  EXPECT_TRUE(tables.ok()) << tables.status();
  return *std::move(tables);
}

// The definitions, in double, on rows that went through the public codec in
// pages of 32 tokens.
DistortionTables BruteForce(const DistortionSweep::Options& options,
                            const std::vector<Capture>& captures) {
  const int dim = options.head_dim;
  const size_t groups = kLayers * kHeads * 2;
  DistortionTables result;
  result.g2.resize(groups);
  result.x2.resize(groups);
  for (const QuantizerSpec& spec : options.quantizers) {
    DistortionTable table{spec, {1, 2, 3, 4, 5, 6, 7, 8}, {}, {}, {}};
    table.mse.resize(groups * 8);
    table.c1.resize(groups * 8);
    table.c2.resize(groups * 8);
    result.tables.push_back(table);
  }
  double tokens = 0;
  for (const Capture& c : captures) {
    if (c.layer == 0 && c.tensor == Tensor::kKey) {
      tokens += c.tokens - options.sink_tokens;
    }
  }
  for (const Capture& c : captures) {
    for (int head = 0; head < kHeads; ++head) {
      const size_t group =
          (c.layer * kHeads + head) * 2 + (c.tensor == Tensor::kValue ? 1 : 0);
      const float* x = &c.values[size_t(head) * c.tokens * dim];
      const float* y = &c.gradients[size_t(head) * c.tokens * dim];
      for (int t = options.sink_tokens; t < c.tokens; ++t) {
        for (int i = t * dim; i < (t + 1) * dim; ++i) {
          result.g2[group] += double(y[i]) * y[i] / (tokens * dim);
          result.x2[group] += double(x[i]) * x[i] / (tokens * dim);
        }
      }
      for (DistortionTable& table : result.tables) {
        for (int width = 1; width <= 8; ++width) {
          auto codec = Codec::Create(
              {table.quantizer, c.tensor, width, dim, 32, Backend::kReference});
          EXPECT_TRUE(codec.ok()) << codec.status();
          std::vector<uint8_t> page((*codec)->layout().section_bytes);
          std::vector<float> decoded(32 * dim);
          const size_t entry = group * 8 + width - 1;
          for (int first = 0; first < c.tokens; first += 32) {
            const int skip = std::clamp(options.sink_tokens - first, 0, 32);
            EXPECT_TRUE((*codec)
                            ->Encode({x + first * dim, DType::kFloat32, dim}, 0,
                                     32, skip, absl::MakeSpan(page))
                            .ok());
            EXPECT_TRUE((*codec)
                            ->Decode(page, 0, 32,
                                     {decoded.data(), DType::kFloat32, dim})
                            .ok());
            for (int t = skip; t < 32; ++t) {
              double projection = 0;
              for (int i = t * dim; i < (t + 1) * dim; ++i) {
                const double e = double(decoded[i]) - x[first * dim + i];
                const double ye = e * y[first * dim + i];
                table.mse[entry] += e * e / (tokens * dim);
                table.c1[entry] += ye * ye / tokens;
                projection += ye;
              }
              table.c2[entry] += projection * projection / tokens;
            }
          }
        }
      }
    }
  }
  return result;
}

// Sums of a thousand and more terms in fp32 lanes: 1e-5 is ample, and far
// below what one code that differs would change. c2 squares a sum with
// cancellation, hence its tolerance.
void ExpectNear(const std::vector<double>& actual,
                const std::vector<double>& expected, double tolerance,
                const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_GT(expected[i], 0) << what << " " << i;
    ASSERT_NEAR(actual[i] / expected[i], 1.0, tolerance) << what << " " << i;
  }
}

void ExpectTablesNear(const DistortionTables& actual,
                      const DistortionTables& expected, double tolerance) {
  ExpectNear(actual.g2, expected.g2, tolerance, "g2");
  ExpectNear(actual.x2, expected.x2, tolerance, "x2");
  ASSERT_EQ(actual.tables.size(), expected.tables.size());
  for (size_t q = 0; q < expected.tables.size(); ++q) {
    const DistortionTable& a = actual.tables[q];
    const DistortionTable& e = expected.tables[q];
    const std::string name = QuantizerName(e.quantizer);
    EXPECT_EQ(a.quantizer, e.quantizer);
    EXPECT_EQ(a.widths, e.widths);
    ExpectNear(a.mse, e.mse, tolerance, name + " mse");
    ExpectNear(a.c1, e.c1, tolerance, name + " c1");
    ExpectNear(a.c2, e.c2, 10 * tolerance, name + " c2");
  }
}

class SweepTest : public testing::TestWithParam<std::tuple<int, DType>> {};

TEST_P(SweepTest, EqualsRoundTripsThroughTheCodec) {
  const auto [dim, dtype] = GetParam();
  const std::vector<Capture> captures = MakeCaptures(dim, 64, dtype);
  const DistortionSweep::Options options = MakeOptions(dim, Backend::kSimd, 2);
  const DistortionTables expected = BruteForce(options, captures);
  ExpectTablesNear(Sweep(options, captures, dtype), expected, 1e-5);
  ExpectTablesNear(
      Sweep(MakeOptions(dim, Backend::kReference, 1), captures, dtype),
      expected, 1e-11);
}

std::string NameOf(const testing::TestParamInfo<std::tuple<int, DType>>& info) {
  const char* const names[] = {"fp32", "fp16", "bf16"};
  return std::string(names[static_cast<int>(std::get<1>(info.param))]) + "_" +
         std::to_string(std::get<0>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, SweepTest,
                         testing::Values(std::tuple(64, DType::kFloat32),
                                         std::tuple(64, DType::kFloat16),
                                         std::tuple(64, DType::kBFloat16),
                                         std::tuple(8, DType::kFloat32),
                                         std::tuple(24, DType::kFloat16),
                                         std::tuple(80, DType::kFloat32),
                                         std::tuple(128, DType::kBFloat16)),
                         NameOf);

// The kernels are compiled once per instruction set; the best one is what the
// other tests run.
TEST(SweepTargets, EveryInstructionSetMeasuresTheSame) {
  const std::vector<Capture> captures = MakeCaptures(64, 64, DType::kFloat16);
  const DistortionSweep::Options options = MakeOptions(64, Backend::kSimd, 1);
  const DistortionTables expected = BruteForce(options, captures);
  for (const int64_t target : {HWY_AVX3, HWY_AVX2, HWY_NEON, HWY_SCALAR}) {
    hwy::SetSupportedTargetsForTest(0);
    if ((hwy::SupportedTargets() & target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ExpectTablesNear(Sweep(options, captures, DType::kFloat16), expected, 1e-5);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

// No tolerance: the tables name the calibration that is stored under their
// digest.
TEST(SweepThreads, DoNotChangeABit) {
  const std::vector<Capture> captures = MakeCaptures(64, 96, DType::kFloat32);
  for (const Backend backend : {Backend::kReference, Backend::kSimd}) {
    const DistortionTables one =
        Sweep(MakeOptions(64, backend, 1), captures, DType::kFloat32);
    const DistortionTables three =
        Sweep(MakeOptions(64, backend, 3), captures, DType::kFloat32);
    EXPECT_EQ(one.g2, three.g2);
    EXPECT_EQ(one.x2, three.x2);
    for (size_t q = 0; q < one.tables.size(); ++q) {
      EXPECT_EQ(one.tables[q].mse, three.tables[q].mse);
      EXPECT_EQ(one.tables[q].c1, three.tables[q].c1);
      EXPECT_EQ(one.tables[q].c2, three.tables[q].c2);
    }
  }
}

TEST(SweepSinks, ValuesAndGradientsDoNotCount) {
  std::vector<Capture> captures = MakeCaptures(64, 64, DType::kFloat32);
  const DistortionSweep::Options options = MakeOptions(64, Backend::kSimd, 1);
  const DistortionTables before = Sweep(options, captures, DType::kFloat32);
  for (Capture& c : captures) {
    for (int head = 0; head < kHeads; ++head) {
      for (int i = 0; i < options.sink_tokens * 64; ++i) {
        c.values[size_t(head) * 64 * 64 + i] = 60000.0f;
        c.gradients[size_t(head) * 64 * 64 + i] = 1.0f;
      }
    }
  }
  const DistortionTables after = Sweep(options, captures, DType::kFloat32);
  // Gradients are scaled by the block's largest; that moves the last bits.
  ExpectTablesNear(after, before, 1e-6);
}

TEST(SweepSinks, MayFillWholeBlocks) {
  const std::vector<Capture> captures = MakeCaptures(64, 96, DType::kFloat32);
  DistortionSweep::Options options = MakeOptions(64, Backend::kSimd, 2);
  options.sink_tokens = 40;
  ExpectTablesNear(Sweep(options, captures, DType::kFloat32),
                   BruteForce(options, captures), 1e-5);
}

// Real gradients span many orders of magnitude; squares of squares must not
// leave fp32's range.
TEST(SweepGradients, AnyScaleGivesTheSameRelativeTables) {
  std::vector<Capture> captures = MakeCaptures(64, 64, DType::kFloat32);
  const DistortionSweep::Options options = MakeOptions(64, Backend::kSimd, 1);
  const DistortionTables base = Sweep(options, captures, DType::kFloat32);
  for (const int exponent : {-100, 90}) {
    std::vector<Capture> scaled = captures;
    for (Capture& c : scaled) {
      for (float& y : c.gradients) y = std::ldexp(y, exponent);
    }
    const DistortionTables tables = Sweep(options, scaled, DType::kFloat32);
    for (size_t i = 0; i < base.g2.size(); ++i) {
      EXPECT_EQ(tables.g2[i], std::ldexp(base.g2[i], 2 * exponent));
      EXPECT_EQ(tables.tables[3].c2[i],
                std::ldexp(base.tables[3].c2[i], 2 * exponent));
    }
  }
}

TEST(SweepWidths, AreThoseAskedFor) {
  const std::vector<Capture> captures = MakeCaptures(64, 64, DType::kFloat32);
  DistortionSweep::Options options = MakeOptions(64, Backend::kSimd, 1);
  const DistortionTables all = Sweep(options, captures, DType::kFloat32);
  options.widths = {2, 5};
  const DistortionTables some = Sweep(options, captures, DType::kFloat32);
  for (size_t q = 0; q < all.tables.size(); ++q) {
    EXPECT_EQ(some.tables[q].widths, (std::vector<int>{2, 5}));
    for (size_t group = 0; group < all.g2.size(); ++group) {
      EXPECT_EQ(some.tables[q].c1[2 * group], all.tables[q].c1[8 * group + 1]);
      EXPECT_EQ(some.tables[q].c1[2 * group + 1],
                all.tables[q].c1[8 * group + 4]);
    }
  }
}

// --- errors ---

class SweepErrorTest : public testing::TestWithParam<Backend> {
 protected:
  SweepErrorTest()
      : values_(kHeads * 64 * 64, 1.5f), gradients_(values_.size(), 1e-3f) {
    sweep_ = *DistortionSweep::Create(MakeOptions(64, GetParam(), 2));
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
  sweep_ = *DistortionSweep::Create(MakeOptions(64, GetParam(), 1));
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

INSTANTIATE_TEST_SUITE_P(Backends, SweepErrorTest,
                         testing::Values(Backend::kReference, Backend::kSimd),
                         [](const auto& info) {
                           return info.param == Backend::kSimd ? "Simd"
                                                               : "Reference";
                         });

void ExpectRefused(const DistortionSweep::Options& options,
                   const std::string& message) {
  const auto sweep = DistortionSweep::Create(options);
  EXPECT_EQ(sweep.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sweep.status().message(), message);
}

TEST(SweepOptions, WhatIsNotSupportedIsNamed) {
  const DistortionSweep::Options good = MakeOptions(64, Backend::kSimd, 0);
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
