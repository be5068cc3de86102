// Names, validation, layouts, numbers and rotations.

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/uniform.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

// --- names ---

TEST(QuantizerName, RoundTripsThroughParse) {
  for (const char* text :
       {"rtn", "kivi", "kivi:group_size=64", "quarot", "quarot:seed=7",
        "turboquant", "turboquant:seed=18446744073709551615",
        "turboquant:seed=3,key_scale=unbiased,value_scale=l2", "tcq",
        "tcq:seed=3,value_scale=l2"}) {
    const auto spec = ParseQuantizer(text);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(QuantizerName(*spec), text);
  }
}

TEST(QuantizerName, LeavesDefaultsOut) {
  EXPECT_EQ(QuantizerName(*ParseQuantizer("kivi:group_size=32")), "kivi");
  EXPECT_EQ(QuantizerName(*ParseQuantizer("turboquant:seed=0,key_scale=l2")),
            "turboquant");
}

TEST(QuantizerName, ParsesEveryDefault) {
  ASSERT_EQ(DefaultQuantizers().size(), 5u);
  for (const QuantizerSpec& spec : DefaultQuantizers()) {
    EXPECT_EQ(*ParseQuantizer(QuantizerId(spec.kind)), spec);
  }
}

TEST(ParseQuantizer, NamesWhatIsNotKnown) {
  const std::pair<const char*, const char*> cases[] = {
      {"",
       "unknown quantizer ''; supported: rtn, kivi, quarot, turboquant, tcq"},
      {"KIVI",
       "unknown quantizer 'KIVI'; supported: rtn, kivi, quarot, turboquant, "
       "tcq"},
      {"rtn:seed=1", "quantizer rtn has no parameter 'seed'; it has none"},
      {"kivi:", "quantizer kivi has no parameter ''; it has: group_size"},
      {"turboquant:bits=3",
       "quantizer turboquant has no parameter 'bits'; it has: seed, key_scale, "
       "value_scale"},
      {"kivi:group_size=48",
       "group_size '48' isn't supported; supported: 8, 16, 32, 64, 128"},
      {"kivi:group_size=x",
       "group_size 'x' isn't supported; supported: 8, 16, 32, 64, 128"},
      {"quarot:seed=-1",
       "seed '-1' isn't supported; supported: integers from 0 to 2^64-1"},
      {"quarot:seed",
       "seed '' isn't supported; supported: integers from 0 to 2^64-1"},
      {"turboquant:key_scale=L2",
       "key_scale 'L2' isn't supported; supported: l2, unbiased"},
      {"quarot:seed=1,seed=2",
       "parameter 'seed' is given twice in 'quarot:seed=1,seed=2'"},
  };
  for (const auto& [text, message] : cases) {
    const auto spec = ParseQuantizer(text);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(spec.status().message(), message);
  }
}

// --- validation ---

void ExpectInvalid(const QuantizerSpec& spec, int head_dim, int page_tokens,
                   const std::string& message) {
  const absl::Status status = ValidateQuantizer(spec, head_dim, page_tokens);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), message);
}

TEST(ValidateQuantizer, AcceptsWhatTheHeaderSays) {
  const QuantizerSpec rtn = *ParseQuantizer("rtn");
  const QuantizerSpec quarot = *ParseQuantizer("quarot:seed=9");
  for (int dim = 8; dim <= 512; dim += 8) {
    for (const int page : {16, 32, 64, 128}) {
      EXPECT_TRUE(ValidateQuantizer(rtn, dim, page).ok());
      EXPECT_EQ(ValidateQuantizer(quarot, dim, page).ok(),
                (dim & (dim - 1)) == 0);
      for (const int group : {8, 16, 32, 64, 128}) {
        QuantizerSpec kivi;
        kivi.group_size = group;
        EXPECT_EQ(ValidateQuantizer(kivi, dim, page).ok(),
                  dim % group == 0 && page % group == 0);
      }
    }
  }
}

TEST(ValidateQuantizer, NamesWhatIsNotSupported) {
  const QuantizerSpec kivi;
  for (const int dim : {0, -8, 4, 12, 520}) {
    ExpectInvalid(kivi, dim, 32,
                  "head_dim " + std::to_string(dim) +
                      " isn't supported; supported: multiples of 8 from 8 to "
                      "512");
  }
  ExpectInvalid(kivi, 64, 48,
                "page_tokens 48 isn't supported; supported: 16, 32, 64, 128");
  ExpectInvalid(kivi, 80, 32,
                "head_dim 80 isn't supported by kivi with group_size 32; "
                "supported: multiples of the group size");
  ExpectInvalid(kivi, 64, 16,
                "page_tokens 16 isn't supported by kivi with group_size 32; "
                "supported: multiples of the group size");
  ExpectInvalid(*ParseQuantizer("turboquant"), 96, 32,
                "head_dim 96 isn't supported by turboquant; supported: powers "
                "of two from 8 to 512");
  QuantizerSpec bad;
  bad.group_size = 0;
  ExpectInvalid(bad, 64, 32,
                "group_size 0 isn't supported; supported: 8, 16, 32, 64, 128");
  bad = QuantizerSpec();
  bad.kind = static_cast<QuantizerKind>(6);
  ExpectInvalid(bad, 64, 32,
                "unknown quantizer kind 6; supported: 1 (rtn), 2 (kivi), 3 "
                "(quarot), 4 (turboquant), 5 (tcq)");
  bad = *ParseQuantizer("turboquant");
  bad.value_scale = static_cast<RowScale>(0);
  ExpectInvalid(bad, 64, 32,
                "unknown row scale 0; supported: 1 (l2), 2 (unbiased)");
}

// Two specs of one quantizer that differ would be two quantizers.
TEST(ValidateQuantizer, RefusesParametersThatDoNotApply) {
  QuantizerSpec spec = *ParseQuantizer("rtn");
  spec.seed = 1;
  ExpectInvalid(spec, 64, 32,
                "quantizer rtn has no parameter 'seed'; it has "
                "none");
  spec = *ParseQuantizer("quarot");
  spec.group_size = 64;
  ExpectInvalid(spec, 64, 32,
                "quantizer quarot has no parameter 'group_size'; it has: seed");
}

// --- layout ---

TEST(SectionLayout, CountsEveryByte) {
  struct Case {
    const char* quantizer;
    Tensor tensor;
    int width, head_dim, page_tokens;
    size_t params, row, codes, section;
  };
  const Tensor k = Tensor::kKey, v = Tensor::kValue;
  for (const Case& c : {
           Case{"rtn", k, 3, 64, 32, 64, 24, 64, 832},
           Case{"turboquant", v, 5, 128, 16, 32, 80, 32, 1312},
           Case{"tcq", k, 2, 64, 64, 64, 16, 64, 1088},
           Case{"tcq", v, 5, 128, 16, 16, 80, 16, 1296},
           Case{"quarot", k, 1, 8, 16, 64, 1, 64, 80},
           Case{"kivi", k, 2, 64, 32, 256, 16, 256, 768},
           Case{"kivi:group_size=16", k, 2, 64, 32, 512, 16, 512, 1024},
           Case{"kivi", v, 2, 64, 32, 256, 16, 256, 768},
           Case{"kivi:group_size=8", v, 7, 24, 16, 192, 21, 192, 528},
           Case{"rtn", v, 7, 24, 16, 32, 21, 32, 368},
           Case{"kivi", k, 16, 64, 32, 0, 128, 0, 4096},
       }) {
    const auto layout =
        ComputeSectionLayout(*ParseQuantizer(c.quantizer), c.tensor, c.width,
                             c.head_dim, c.page_tokens);
    ASSERT_TRUE(layout.ok()) << layout.status();
    EXPECT_EQ(layout->params_bytes, c.params) << c.quantizer;
    EXPECT_EQ(layout->row_bytes, c.row) << c.quantizer;
    EXPECT_EQ(layout->codes_offset, c.codes) << c.quantizer;
    EXPECT_EQ(layout->section_bytes, c.section) << c.quantizer;
  }
}

TEST(SectionLayout, RefusesWhatCodecsRefuse) {
  const QuantizerSpec kivi;
  for (const int width : {0, 9, 15, 17, -1}) {
    const auto layout = ComputeSectionLayout(kivi, Tensor::kKey, width, 64, 32);
    EXPECT_EQ(layout.status().message(),
              "width " + std::to_string(width) +
                  " isn't supported; supported: 1 to 8 bits, and 16 (fp16)");
  }
  // The quantizer is ignored at width 16, the shape isn't.
  EXPECT_TRUE(ComputeSectionLayout(kivi, Tensor::kKey, 16, 80, 16).ok());
  EXPECT_FALSE(ComputeSectionLayout(kivi, Tensor::kKey, 16, 12, 16).ok());
}

// --- bit streams ---

TEST(BitStream, IsLeastSignificantBitFirst) {
  const uint8_t codes[] = {1, 2, 3, 4, 5, 6, 7, 0};
  uint8_t row[3];
  PackCodes(codes, 3, 8, row);
  EXPECT_EQ(row[0], 0xD1);
  EXPECT_EQ(row[1], 0x58);
  EXPECT_EQ(row[2], 0x1F);
}

TEST(BitStream, RoundTripsEveryCodeAtEveryPlace) {
  for (int width = 1; width <= 8; ++width) {
    std::vector<uint8_t> codes(512);
    for (int shift = 0; shift < 1 << width; ++shift) {
      for (int i = 0; i < 512; ++i) {
        codes[i] = static_cast<uint8_t>((i + shift) & ((1 << width) - 1));
      }
      std::vector<uint8_t> row(BytesOfCodes(width, 512));
      PackCodes(codes.data(), width, 512, row.data());
      for (int i = 0; i < 512; ++i) {
        ASSERT_EQ(CodeAt(row.data(), width, i), codes[i]);
      }
    }
  }
}

// --- numbers ---

TEST(Half, EveryValueRoundTrips) {
  for (uint32_t h = 0; h <= 0xFFFF; ++h) {
    if ((h & 0x7C00) == 0x7C00) continue;  // infinities and NaNs
    ASSERT_EQ(HalfOfFloat(FloatOfHalf(static_cast<uint16_t>(h))), h);
  }
}

// Between two neighbours the nearer is taken, in the middle the even one.
TEST(Half, RoundsToNearestEven) {
  for (uint16_t h = 0; h < 0x7BFF; ++h) {
    const float low = FloatOfHalf(h);
    const float high = FloatOfHalf(h + 1);
    const float middle = 0.5f * (low + high);  // exact in fp32
    const uint16_t even = h % 2 == 0 ? h : h + 1;
    ASSERT_EQ(HalfOfFloat(middle), even);
    ASSERT_EQ(HalfOfFloat(-middle), even | 0x8000);
    ASSERT_EQ(HalfOfFloat(std::nextafter(middle, low)), h);
    ASSERT_EQ(HalfOfFloat(std::nextafter(middle, high)), h + 1);
  }
}

TEST(Half, SaturatesAndKeepsTheSign) {
  EXPECT_EQ(HalfOfFloat(65520.0f), 0x7BFF);
  EXPECT_EQ(HalfOfFloat(-1e30f), 0xFBFF);
  EXPECT_EQ(HalfOfFloat(1e-30f), 0x0000);
  EXPECT_EQ(HalfOfFloat(-1e-30f), 0x8000);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(BFloat16OfFloat(1.0f), 0x3F80);
  EXPECT_EQ(BFloat16OfFloat(1.00390625f), 0x3F80);  // a tie, down to even
  EXPECT_EQ(BFloat16OfFloat(1.01171875f), 0x3F82);  // a tie, up to even
  EXPECT_EQ(BFloat16OfFloat(-1.00390637f), 0xBF81);
  EXPECT_EQ(FloatOfBFloat16(0xC040), -3.0f);
}

TEST(Uniform, RoundsHalfToEven) {
  EXPECT_EQ(AsymmetricCode(0.5f, 0.0f, 1.0f, 4), 0);
  EXPECT_EQ(AsymmetricCode(1.5f, 0.0f, 1.0f, 4), 2);
  EXPECT_EQ(AsymmetricCode(2.5f, 0.0f, 1.0f, 4), 2);
  EXPECT_EQ(SymmetricCode(-2.5f, 1.0f, 1.0f, 4), -2 + 8);
}

TEST(Uniform, HugeRangesStayFinite) {
  const float scale = AsymmetricScale(-65504.0f, 65504.0f, 1);
  EXPECT_EQ(scale, 65504.0f);
  EXPECT_EQ(AsymmetricValue(1, -65504.0f, scale), 0.0f);
}

// --- rotation ---

TEST(Rotation, SignsAreSplitMix64Bits) {
  // The published first outputs for seed 1234567.
  EXPECT_EQ(SplitMix64(1234567, 0), 6457827717110365317ull);
  EXPECT_EQ(SplitMix64(1234567, 1), 3203168211198807973ull);
  for (int c = 0; c < 128; ++c) {
    const uint64_t word =
        c < 64 ? 6457827717110365317ull : 3203168211198807973ull;
    EXPECT_EQ(RotationSign(1234567, c), (word >> (c % 64)) & 1 ? -1.0f : 1.0f);
  }
}

TEST(Rotation, IsTheSylvesterMatrix) {
  const int dim = 64;
  for (const int channel : {0, 1, 5, 63}) {
    std::vector<float> values(dim, 0.0f);
    values[channel] = 1.0f;
    HadamardTransform(values.data(), dim);
    for (int i = 0; i < dim; ++i) {
      // H[i][j] = (-1)^(number of common one bits of i and j).
      EXPECT_EQ(values[i],
                __builtin_popcount(i & channel) % 2 == 0 ? 1.0f : -1.0f);
    }
  }
}

TEST(Rotation, KeepsLengthsAndComesBack) {
  for (int dim = 8; dim <= 512; dim *= 2) {
    std::vector<float> signs;
    for (int c = 0; c < dim; ++c) signs.push_back(RotationSign(42, c));
    TestRandom random(dim);
    std::vector<float> x;
    for (int c = 0; c < dim; ++c) x.push_back(random.Normal());
    std::vector<float> y = x;
    Rotate(signs.data(), y.data(), dim);
    EXPECT_NEAR(std::inner_product(y.begin(), y.end(), y.begin(), 0.0) /
                    std::inner_product(x.begin(), x.end(), x.begin(), 0.0),
                1.0, 1e-6);
    RotateBack(signs.data(), y.data(), dim);
    for (int c = 0; c < dim; ++c) EXPECT_NEAR(y[c], x[c], 3e-6);
  }
}

TEST(FoldSum, AddsTheUpperHalfToTheLower) {
  // In another order these give 0 or 2.
  float values[] = {1e8f, 1.0f, -1e8f, 0.0f};
  EXPECT_EQ(FoldSum(values, 4), 1.0f);
}

}  // namespace
}  // namespace ratequant::kv
