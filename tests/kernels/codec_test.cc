// What a codec promises: error bounds, ranges, sinks, errors.

#include "ratequant/kv/codec.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

constexpr int kDim = 64;
constexpr int kPageTokens = 32;

std::unique_ptr<Codec> MakeCodec(const std::string& quantizer, Tensor tensor,
                                 int width, Backend backend = Backend::kSimd) {
  auto codec = Codec::Create(
      {*ParseQuantizer(quantizer), tensor, width, kDim, kPageTokens, backend});
  EXPECT_TRUE(codec.ok()) << codec.status();
  return *std::move(codec);
}

std::vector<uint8_t> EncodePage(const Codec& codec,
                                const std::vector<float>& rows, int skip = 0) {
  std::vector<uint8_t> section(codec.layout().section_bytes, 0);
  const absl::Status status =
      codec.Encode({rows.data(), DType::kFloat32, kDim}, 0, kPageTokens, skip,
                   absl::MakeSpan(section));
  EXPECT_TRUE(status.ok()) << status;
  return section;
}

std::vector<float> DecodePage(const Codec& codec,
                              const std::vector<uint8_t>& section) {
  std::vector<float> rows(kPageTokens * kDim, -1.0f);
  const absl::Status status = codec.Decode(
      section, 0, kPageTokens, {rows.data(), DType::kFloat32, kDim});
  EXPECT_TRUE(status.ok()) << status;
  return rows;
}

std::vector<float> RoundTrip(const Codec& codec,
                             const std::vector<float>& rows) {
  return DecodePage(codec, EncodePage(codec, rows));
}

std::vector<float> NormalRows(uint64_t seed) {
  TestRandom random(seed);
  std::vector<float> rows(kPageTokens * kDim);
  for (float& x : rows) x = random.Normal();
  return rows;
}

double SquaredNorm(const float* x) {
  double sum = 0;
  for (int c = 0; c < kDim; ++c) sum += double(x[c]) * x[c];
  return sum;
}

double SquaredDistance(const float* a, const float* b) {
  double sum = 0;
  for (int c = 0; c < kDim; ++c) sum += (double(a[c]) - b[c]) * (a[c] - b[c]);
  return sum;
}

class WidthTest : public testing::TestWithParam<int> {
 protected:
  // Relative error of fp16 scales and zeros.
  static constexpr double kHalf = 0x1p-11;
};

// --- error bounds, relative to the quantizer's own step ---

TEST_P(WidthTest, RtnIsWithinHalfAStep) {
  const int width = GetParam();
  const std::vector<float> x = NormalRows(1);
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    const auto decoded = RoundTrip(*MakeCodec("rtn", tensor, width), x);
    for (int t = 0; t < kPageTokens; ++t) {
      double abs_max = 0;
      for (int c = 0; c < kDim; ++c) {
        abs_max = std::max(abs_max, std::fabs(double(x[t * kDim + c])));
      }
      const double step =
          width == 1 ? abs_max : abs_max / ((1 << (width - 1)) - 1);
      for (int i = t * kDim; i < (t + 1) * kDim; ++i) {
        EXPECT_LE(std::fabs(decoded[i] - x[i]), step / 2 + 2 * kHalf * abs_max);
      }
    }
  }
}

TEST_P(WidthTest, KiviIsWithinHalfAStepOfItsGroup) {
  const int width = GetParam();
  const std::vector<float> x = NormalRows(2);
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    const auto decoded = RoundTrip(*MakeCodec("kivi", tensor, width), x);
    for (int i = 0; i < kPageTokens * kDim; ++i) {
      double low = x[i], high = x[i];
      for (int k = 0; k < 32; ++k) {
        const double v = tensor == Tensor::kKey ? x[k * kDim + i % kDim]
                                                : x[i / 32 * 32 + k];
        low = std::min(low, v);
        high = std::max(high, v);
      }
      const double step = (high - low) / ((1 << width) - 1);
      EXPECT_LE(std::fabs(decoded[i] - x[i]),
                step / 2 + 2 * kHalf * (std::fabs(low) + high - low));
    }
  }
}

// The rotation keeps lengths: half a step in every rotated channel.
TEST_P(WidthTest, QuarotIsWithinHalfAStepOfTheRotatedRange) {
  const int width = GetParam();
  const std::vector<float> x = NormalRows(3);
  std::vector<float> signs;
  for (int c = 0; c < kDim; ++c) signs.push_back(RotationSign(11, c));
  const auto decoded =
      RoundTrip(*MakeCodec("quarot:seed=11", Tensor::kKey, width), x);
  for (int t = 0; t < kPageTokens; ++t) {
    std::vector<float> y(x.begin() + t * kDim, x.begin() + (t + 1) * kDim);
    Rotate(signs.data(), y.data(), kDim);
    const double low = *std::min_element(y.begin(), y.end());
    const double high = *std::max_element(y.begin(), y.end());
    const double bound = (high - low) / ((1 << width) - 1) / 2 +
                         2 * kHalf * (std::fabs(low) + high - low);
    EXPECT_LE(SquaredDistance(&decoded[t * kDim], &x[t * kDim]),
              kDim * bound * bound);
  }
}

// A rotated row has nearly the marginal that the codebook is made for: its mean
// error is the Lloyd-Max error of the width (method: Table 8), within the
// spread of 32 rows and the difference between d = 64 and 128.
TEST_P(WidthTest, TurboquantHasTheLloydMaxError) {
  const int width = GetParam();
  const double lloyd_max[] = {.36,    .116,   .034,    .0094,
                              .00245, .00063, .000159, .0000405};
  const std::vector<float> x = NormalRows(4);
  const auto decoded =
      RoundTrip(*MakeCodec("turboquant", Tensor::kKey, width), x);
  double error = 0, energy = 0;
  for (int t = 0; t < kPageTokens; ++t) {
    error += SquaredDistance(&decoded[t * kDim], &x[t * kDim]);
    energy += SquaredNorm(&x[t * kDim]);
  }
  EXPECT_NEAR(error / energy / lloyd_max[width - 1], 1.0, 0.1);
}

// The same for the trellis' error at widths that it codes (trellis_test.cc);
// what rounding the norm costs is within it.
TEST_P(WidthTest, TcqHasTheErrorOfItsTrellis) {
  const int width = GetParam();
  const double expected[] = {.295,   .0826,  .0227,   .0061,
                             .00245, .00063, .000159, .0000405};
  const std::vector<float> x = NormalRows(4);
  const auto decoded = RoundTrip(*MakeCodec("tcq", Tensor::kKey, width), x);
  double error = 0, energy = 0;
  for (int t = 0; t < kPageTokens; ++t) {
    error += SquaredDistance(&decoded[t * kDim], &x[t * kDim]);
    energy += SquaredNorm(&x[t * kDim]);
  }
  EXPECT_NEAR(error / energy / expected[width - 1], 1.0, 0.1);
}

// Rounding to an eighth of an octave moves a row's length by up to 4.5%, to
// both sides alike; without the correction all rows shrink.
TEST_P(WidthTest, TcqValuesAreUnbiasedInTheMean) {
  const int width = GetParam();
  const std::vector<float> x = NormalRows(5);
  for (const bool unbiased : {true, false}) {
    const auto decoded =
        RoundTrip(*MakeCodec(unbiased ? "tcq" : "tcq:value_scale=l2",
                             Tensor::kValue, width),
                  x);
    double mean = 0;
    for (int t = 0; t < kPageTokens; ++t) {
      double dot = 0;
      for (int c = 0; c < kDim; ++c) {
        dot += double(decoded[t * kDim + c]) * x[t * kDim + c];
      }
      const double length = dot / SquaredNorm(&x[t * kDim]);
      if (unbiased) {
        EXPECT_NEAR(length, 1.0, 0.0455);
      }
      mean += length / kPageTokens;
    }
    if (unbiased) {
      EXPECT_NEAR(mean, 1.0, 0.015);
    } else if (width <= 2) {
      EXPECT_LT(mean, 0.95);
    }
  }
}

// The unbiased scale gives the decoded row the right length along the row.
TEST_P(WidthTest, TurboquantValuesAreUnbiased) {
  const int width = GetParam();
  const std::vector<float> x = NormalRows(5);
  for (const bool unbiased : {true, false}) {
    const auto decoded = RoundTrip(
        *MakeCodec(unbiased ? "turboquant" : "turboquant:value_scale=l2",
                   Tensor::kValue, width),
        x);
    double worst = 0;
    for (int t = 0; t < kPageTokens; ++t) {
      double dot = 0;
      for (int c = 0; c < kDim; ++c) {
        dot += double(decoded[t * kDim + c]) * x[t * kDim + c];
      }
      worst = std::max(worst, std::fabs(dot / SquaredNorm(&x[t * kDim]) - 1.0));
    }
    if (unbiased) {
      EXPECT_LE(worst, 2 * kHalf);
    } else if (width <= 4) {
      EXPECT_GT(worst, 4 * kHalf);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, WidthTest, testing::Range(1, 9));

TEST(Fp16Width, StoresHalvesExactly) {
  std::vector<float> x = MakeRows(kPageTokens, kDim, 6);
  for (float& v : x) v = RoundToHalf(v);
  const auto codec = MakeCodec("kivi", Tensor::kKey, 16);
  EXPECT_EQ(codec->token_granule(), 1);
  EXPECT_EQ(RoundTrip(*codec, x), x);
}

// --- every codec ---

struct Kind {
  const char* quantizer;
  Tensor tensor;
  int width;
  Backend backend;
};

class CodecTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    const Kind& kind = GetParam();
    codec_ = MakeCodec(kind.quantizer, kind.tensor, kind.width, kind.backend);
    section_.resize(codec_->layout().section_bytes);
  }

  absl::Status Encode(const std::vector<float>& rows, int first, int count,
                      int skip = 0) {
    return codec_->Encode({rows.data(), DType::kFloat32, kDim}, first, count,
                          skip, absl::MakeSpan(section_));
  }

  std::unique_ptr<Codec> codec_;
  std::vector<uint8_t> section_;
};

TEST_P(CodecTest, AnyChunkingGivesTheSameBytes) {
  const std::vector<float> x = MakeRows(kPageTokens, kDim, 7);
  const std::vector<uint8_t> whole = EncodePage(*codec_, x, 3);
  const int granule = codec_->token_granule();
  TestRandom random(8);
  for (int trial = 0; trial < 20; ++trial) {
    std::fill(section_.begin(), section_.end(), 0);
    for (int first = 0; first < kPageTokens;) {
      const int left = (kPageTokens - first) / granule;
      const int count = granule * (1 + static_cast<int>(random.Bits() % left));
      const std::vector<float> chunk(x.begin() + first * kDim,
                                     x.begin() + (first + count) * kDim);
      ASSERT_TRUE(Encode(chunk, first, count, 3).ok());
      first += count;
    }
    ASSERT_EQ(section_, whole);
  }
}

TEST_P(CodecTest, DecodesAnyRange) {
  const std::vector<uint8_t> section =
      EncodePage(*codec_, MakeRows(kPageTokens, kDim, 9));
  const std::vector<float> whole = DecodePage(*codec_, section);
  for (int first = 0; first < kPageTokens; first += 5) {
    for (int count = 0; count <= kPageTokens - first; count += 3) {
      std::vector<float> part(count * kDim);
      ASSERT_TRUE(codec_
                      ->Decode(section, first, count,
                               {part.data(), DType::kFloat32, kDim})
                      .ok());
      ASSERT_EQ(part,
                std::vector<float>(whole.begin() + first * kDim,
                                   whole.begin() + (first + count) * kDim));
    }
  }
}

TEST_P(CodecTest, OtherRowsAreNotTouched) {
  const std::vector<float> x = MakeRows(kPageTokens, kDim, 10);
  const std::vector<uint8_t> before = EncodePage(*codec_, x);
  section_ = before;
  const int granule = codec_->token_granule();
  const int first = kPageTokens / 2;
  const std::vector<float> other = NormalRows(11);
  ASSERT_TRUE(Encode(other, first, granule).ok());
  const std::vector<float> old_rows = DecodePage(*codec_, before);
  const std::vector<float> rows = DecodePage(*codec_, section_);
  for (int t = 0; t < kPageTokens; ++t) {
    if (t >= first && t < first + granule) continue;
    for (int c = 0; c < kDim; ++c) {
      ASSERT_EQ(rows[t * kDim + c], old_rows[t * kDim + c]) << t;
    }
  }
}

TEST_P(CodecTest, SinksEnterNoRangeAndTheirCodesAreZero) {
  const int skip = 5;
  std::vector<float> x = NormalRows(12);
  const std::vector<uint8_t> expected = EncodePage(*codec_, x, skip);
  for (int i = 0; i < skip * kDim; ++i) x[i] = i % 2 == 0 ? 60000.0f : -7.0f;
  EXPECT_EQ(EncodePage(*codec_, x, skip), expected);
  EXPECT_NE(EncodePage(*codec_, x, 0), expected);
  const SectionLayout& layout = codec_->layout();
  for (size_t i = 0; i < skip * layout.row_bytes; ++i) {
    ASSERT_EQ(expected[layout.codes_offset + i], 0);
  }
}

TEST_P(CodecTest, ZeroRangesGiveExactValues) {
  std::vector<float> zeros(kPageTokens * kDim, 0.0f);
  for (size_t i = 0; i < zeros.size(); i += 2) zeros[i] = -0.0f;
  const std::vector<uint8_t> section = EncodePage(*codec_, zeros);
  for (const float x : DecodePage(*codec_, section)) ASSERT_EQ(x, 0.0f);
  if (GetParam().width <= 8) {
    for (const uint8_t byte : section) ASSERT_EQ(byte, 0);
  }
  if (codec_->options().quantizer.kind == QuantizerKind::kKivi) {
    const std::vector<float> same(kPageTokens * kDim, -3.140625f);
    EXPECT_EQ(RoundTrip(*codec_, same), same);
  }
}

TEST_P(CodecTest, ExtremeValuesStayFinite) {
  for (const float size : {1e-38f, 1e-20f, 6e-8f, 65504.0f}) {
    std::vector<float> x = NormalRows(13);
    for (float& v : x) v = v < 0 ? -size : size * std::min(v, 1.0f);
    const std::vector<float> decoded = RoundTrip(*codec_, x);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_TRUE(std::isfinite(decoded[i]));
      // Below fp16's range everything is lost, above it nothing explodes.
      ASSERT_LE(std::fabs(decoded[i]), 20 * size + 1e-6f);
    }
  }
}

TEST_P(CodecTest, BadValuesAreNamed) {
  const float inf = std::numeric_limits<float>::infinity();
  const int granule = codec_->token_granule();
  const int first = kPageTokens - granule;  // the row is the page's
  const int row = first + granule - 1;
  const std::string place = " at row " + std::to_string(row) + ", channel 63";
  const std::pair<float, std::string> cases[] = {
      {NAN, "NaN" + place},
      {inf, "Inf" + place},
      {-inf, "-Inf" + place},
      {-65520.0f,
       "value -65520" + place + " is beyond fp16's largest magnitude, 65504"},
  };
  for (const auto& [bad, message] : cases) {
    std::vector<float> rows(granule * kDim, 1.0f);
    rows.back() = bad;
    const absl::Status status = Encode(rows, first, granule);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(), message);
    // A sink isn't encoded, but a broken one is noticed.
    EXPECT_EQ(Encode(rows, first, granule, kPageTokens).message(), message);
  }
}

TEST_P(CodecTest, BadCallsAreRefused) {
  const std::vector<float> x = NormalRows(14);
  std::vector<float> out(x.size());
  const auto decode = [&](int first, int count, DType dtype, int64_t stride) {
    return codec_->Decode(section_, first, count, {out.data(), dtype, stride});
  };
  for (const auto& [first, count] :
       {std::pair(-1, 1),
        {0, kPageTokens + 1},
        {kPageTokens, 1},
        {1, -1},
        {std::numeric_limits<int>::max(), std::numeric_limits<int>::max()}}) {
    EXPECT_EQ(Encode(x, first, count).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(decode(first, count, DType::kFloat32, kDim).code(),
              absl::StatusCode::kInvalidArgument);
  }
  if (codec_->token_granule() > 1) {
    EXPECT_EQ(Encode(x, 0, 1).message(),
              "rows [0, 1) aren't whole groups of 16 tokens");
    EXPECT_EQ(Encode(x, 8, 16).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Encode(x, 0, 16, -1).message(), "skip_tokens -1 is negative");
  EXPECT_EQ(decode(0, 2, static_cast<DType>(9), kDim).message(),
            "dtype 9 isn't supported; supported: 0 (fp32), 1 (fp16), 2 (bf16)");
  EXPECT_EQ(decode(0, 2, DType::kFloat32, kDim - 1).message(),
            "row_stride 63 is below head_dim 64");
  EXPECT_EQ(codec_
                ->Encode({nullptr, DType::kFloat32, kDim}, 0, 16, 0,
                         absl::MakeSpan(section_))
                .message(),
            "the rows' data is null");
  section_.pop_back();
  EXPECT_EQ(Encode(x, 0, 16).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decode(0, 1, DType::kFloat32, kDim).code(),
            absl::StatusCode::kInvalidArgument);
}

std::vector<Kind> AllKinds() {
  std::vector<Kind> kinds;
  for (const Backend backend : {Backend::kReference, Backend::kSimd}) {
    for (const char* quantizer :
         {"rtn", "kivi:group_size=16", "quarot", "turboquant", "tcq"}) {
      for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
        for (const int width : {1, 3, 8, 16}) {
          kinds.push_back({quantizer, tensor, width, backend});
        }
      }
    }
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(
    All, CodecTest, testing::ValuesIn(AllKinds()), [](const auto& info) {
      const Kind& kind = info.param;
      std::string name = kind.quantizer;
      return name.substr(0, name.find(':')) +
             (kind.tensor == Tensor::kKey ? "_K_" : "_V_") +
             std::to_string(kind.width) +
             (kind.backend == Backend::kSimd ? "_simd" : "_reference");
    });

TEST(CodecCreate, NamesWhatIsNotSupported) {
  const auto message = [](const Codec::Options& options) {
    const auto codec = Codec::Create(options);
    EXPECT_EQ(codec.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(codec.status().message());
  };
  const QuantizerSpec kivi;
  EXPECT_EQ(message({kivi, Tensor::kKey, 9, 64, 32}),
            "width 9 isn't supported; supported: 1 to 8 bits, and 16 (fp16)");
  EXPECT_EQ(message({kivi, Tensor::kKey, 4, 60, 32}),
            "head_dim 60 isn't supported; supported: multiples of 8 from 8 to "
            "512");
  EXPECT_EQ(message({kivi, Tensor::kKey, 16, 64, 33}),
            "page_tokens 33 isn't supported; supported: 16, 32, 64, 128");
  EXPECT_EQ(message({kivi, static_cast<Tensor>(7), 4, 64, 32}),
            "tensor 7 isn't supported; supported: 0 (K), 1 (V)");
  EXPECT_EQ(message({kivi, Tensor::kKey, 4, 64, 32, static_cast<Backend>(2)}),
            "backend 2 isn't supported; supported: 0 (reference), 1 (SIMD)");
}

}  // namespace
}  // namespace ratequant::kv
