// The sweep measures exactly what a round trip through the codec loses.

#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "ratequant/kv/distortion.h"
#include "tests/kernels/codec_test_util.h"
#include "tests/kernels/sweep/sweep_cases.h"

namespace ratequant::kv {

const SweepTarget kReference = {"Reference", Backend::kReference, {}};
const SweepTarget kSimd = {"Simd", Backend::kSimd, {}};

std::vector<SweepTarget> SweepTargets() { return {kReference, kSimd}; }

namespace {

// The definitions, in double, on rows that went through the public codec in
// pages of 32 tokens.
DistortionTables BruteForce(const DistortionSweep::Options& options,
                            const std::vector<Capture>& captures) {
  const int dim = options.head_dim;
  const size_t groups = options.layers * options.kv_heads * 2;
  DistortionTables result;
  result.g2.resize(groups);
  result.x2.resize(groups);
  for (const QuantizerSpec& spec : options.quantizers) {
    DistortionTable table;
    table.quantizer = spec;
    table.widths = {1, 2, 3, 4, 5, 6, 7, 8};
    table.mse.resize(groups * 8);
    table.c1.resize(groups * 8);
    table.c2.resize(groups * 8);
    table.c2_standard_error.resize(groups * 8);
    result.tables.push_back(table);
  }
  // Of each table's entries, the mean of c2 in each sequence.
  std::vector<std::vector<std::vector<double>>> means(
      result.tables.size(), std::vector<std::vector<double>>(groups * 8));
  double tokens = 0;
  for (const Capture& c : captures) {
    if (c.layer == 0 && c.tensor == Tensor::kKey) {
      tokens += c.tokens - options.sink_tokens;
    }
  }
  for (const Capture& c : captures) {
    for (int head = 0; head < options.kv_heads; ++head) {
      const size_t group = (c.layer * options.kv_heads + head) * 2 +
                           (c.tensor == Tensor::kValue ? 1 : 0);
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
          std::vector<double>& entry_means =
              means[&table - result.tables.data()][entry];
          entry_means.push_back(0);
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
              entry_means.back() +=
                  projection * projection / (c.tokens - options.sink_tokens);
            }
          }
        }
      }
    }
  }
  for (size_t t = 0; t < means.size(); ++t) {
    for (size_t entry = 0; entry < means[t].size(); ++entry) {
      const std::vector<double>& samples = means[t][entry];
      const double n = static_cast<double>(samples.size());
      double variance = 0;
      for (double sample : samples) {
        const double off = sample - result.tables[t].c2[entry];
        variance += off * off / (n - 1);
      }
      result.tables[t].c2_standard_error[entry] = std::sqrt(variance / n);
    }
  }
  return result;
}

class SweepTest : public testing::TestWithParam<std::tuple<int, DType>> {};

TEST_P(SweepTest, EqualsRoundTripsThroughTheCodec) {
  const auto [dim, dtype] = GetParam();
  const DistortionSweep::Options options = MakeSweepOptions(dim, kSimd, 2);
  const std::vector<Capture> captures = MakeCaptures(options, 3, 64, dtype);
  const DistortionTables expected = BruteForce(options, captures);
  ExpectWithinBounds(Sweep(options, captures, dtype), expected, dim);
  ExpectTablesNear(Sweep(MakeSweepOptions(dim, kReference), captures, dtype),
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
  const DistortionSweep::Options options = MakeSweepOptions(64, kSimd, 1);
  const std::vector<Capture> captures =
      MakeCaptures(options, 2, 64, DType::kFloat16);
  const DistortionTables expected = BruteForce(options, captures);
  for (const int64_t target : {HWY_AVX3, HWY_AVX2, HWY_NEON, HWY_SCALAR}) {
    hwy::SetSupportedTargetsForTest(0);
    if ((hwy::SupportedTargets() & target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ExpectWithinBounds(Sweep(options, captures, DType::kFloat16), expected, 64);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

// No tolerance: the tables name the calibration that is stored under their
// digest.
TEST(SweepThreads, DoNotChangeABit) {
  const std::vector<Capture> captures =
      MakeCaptures(MakeSweepOptions(64, kSimd), 2, 96, DType::kFloat32);
  for (const SweepTarget& target : SweepTargets()) {
    ExpectSameTables(
        Sweep(MakeSweepOptions(64, target, 3), captures, DType::kFloat32),
        Sweep(MakeSweepOptions(64, target, 1), captures, DType::kFloat32));
  }
}

TEST(SweepStandardErrors, NeedSequencesOfOneLength) {
  const DistortionSweep::Options options = MakeSweepOptions(64, kSimd);
  std::vector<Capture> captures = MakeCaptures(options, 1, 64, DType::kFloat32);
  for (const DistortionTable& table :
       Sweep(options, captures, DType::kFloat32).tables) {
    EXPECT_TRUE(table.c2_standard_error.empty());
  }
  const std::vector<Capture> longer =
      MakeCaptures(options, 1, 96, DType::kFloat32);
  captures.insert(captures.end(), longer.begin(), longer.end());
  for (const DistortionTable& table :
       Sweep(options, captures, DType::kFloat32).tables) {
    EXPECT_TRUE(table.c2_standard_error.empty());
  }
}

TEST(SweepSinks, ValuesAndGradientsDoNotCount) {
  const DistortionSweep::Options options = MakeSweepOptions(64, kSimd, 1);
  std::vector<Capture> captures = MakeCaptures(options, 2, 64, DType::kFloat32);
  const DistortionTables before = Sweep(options, captures, DType::kFloat32);
  for (Capture& c : captures) {
    for (int head = 0; head < options.kv_heads; ++head) {
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
  DistortionSweep::Options options = MakeSweepOptions(64, kSimd, 2);
  const std::vector<Capture> captures =
      MakeCaptures(options, 2, 96, DType::kFloat32);
  options.sink_tokens = 40;
  ExpectWithinBounds(Sweep(options, captures, DType::kFloat32),
                     BruteForce(options, captures), 64);
}

// Real gradients span many orders of magnitude; squares of squares must not
// leave fp32's range.
TEST(SweepGradients, AnyScaleGivesTheSameRelativeTables) {
  const DistortionSweep::Options options = MakeSweepOptions(64, kSimd, 1);
  std::vector<Capture> captures = MakeCaptures(options, 2, 64, DType::kFloat32);
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
  DistortionSweep::Options options = MakeSweepOptions(64, kSimd, 1);
  const std::vector<Capture> captures =
      MakeCaptures(options, 2, 64, DType::kFloat32);
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

}  // namespace
}  // namespace ratequant::kv
