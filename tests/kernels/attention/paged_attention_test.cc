// Attention from packed pages is attention over the dequantized rows.

#include "kernels/cpu/paged_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hwy/targets.h"
#include "kernels/quantizers/element.h"
#include "tests/kernels/attention/attention_case.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

// Largest error against fp64 over the dequantized rows, in units of the largest
// stored value: fp32's arithmetic, and the output's own rounding.
double BoundFor(DType out) {
  constexpr double kArithmetic = 1e-6;
  switch (out) {
    case DType::kFloat16:
      return kArithmetic + 0x1p-11;
    case DType::kBFloat16:
      return kArithmetic + 0x1p-8;
    case DType::kFloat32:
      break;
  }
  return kArithmetic;
}

void ExpectAttention(AttentionCase& test, DType out, Backend backend,
                     LoopRunner* loops = nullptr) {
  const std::vector<double> expected = test.Reference(/*stored=*/true);
  const std::vector<float> actual = test.Run(backend, loops);
  ASSERT_EQ(actual.size(), expected.size());
  const double bound = BoundFor(out) * test.LargestValue();
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << "element " << i;
  }
}

void ExpectAttention(const AttentionShape& shape,
                     const std::vector<GroupFormat>& formats, Backend backend) {
  SCOPED_TRACE(Describe(shape));
  AttentionCase test(shape, formats);
  test.Fill();
  ExpectAttention(test, shape.out_dtype, backend);
}

std::vector<GroupFormat> Same(const QuantizerSpec& quantizer, int width,
                              int groups = 2) {
  return std::vector<GroupFormat>(groups, {quantizer, width});
}

// Shapes that between them have every boundary: pages, windows, kivi's blocks,
// sinks, forked prefixes, causal ends within a step.
std::vector<AttentionShape> Shapes(int dim) {
  return {
      {.head_dim = dim, .sequences = {{1}, {3}, {36}, {37}, {101}}},
      {.head_dim = dim,
       .group = 3,
       .page_tokens = 64,
       .sequences = {{129, 1}, {9, 8}, {0, 0}, {70, 5}}},
      {.head_dim = dim,
       .group = 4,
       .page_tokens = 128,
       .sink_tokens = 0,
       .window = 7,
       .query_dtype = DType::kBFloat16,
       .out_dtype = DType::kBFloat16,
       .sequences = {{263, 2}, {130, 3}}},
      {.head_dim = dim,
       .group = 8,
       .sink_tokens = 37,
       .window = 0,
       .query_dtype = DType::kFloat16,
       .out_dtype = DType::kFloat16,
       .sequences = {{20, 4}, {97, 1}, {64, 6}}},
      {.head_dim = dim,
       .group = 2,
       .sliding_window = 41,
       .soft_cap = 3.0f,
       .sequences = {{150, 7}, {40, 2}, {73, 1}}},
      {.head_dim = dim,
       .window = 64,
       .sequences = {{70, 1, 64}, {64, 2, 64}, {200, 1, 128}}},
  };
}

class PagedAttentionTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    const int64_t target = GetParam();
    if ((hwy::SupportedTargets() & target) == 0) {
      GTEST_SKIP() << "this CPU has no " << hwy::TargetName(target);
    }
    UseTarget(target);
    const bool scalar =
        &GetAttentionKernels(Backend::kSimd) == &ScalarAttentionKernels();
    ASSERT_EQ(scalar, target == HWY_SCALAR);
  }
  void TearDown() override { UseTarget(0); }

  static void UseTarget(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_P(PagedAttentionTest, EqualsAttentionOverDequantizedRows) {
  for (const int dim : {8, 24, 64, 80, 96, 128, 256, 512}) {
    for (const AttentionShape& shape : Shapes(dim)) {
      for (const QuantizerSpec& quantizer :
           QuantizersFor(dim, shape.page_tokens)) {
        for (const int width : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
          // Every width at two head_dims, a few at the others.
          if (dim != 64 && dim != 24 && width % 3 != 0 && width < 8) continue;
          SCOPED_TRACE(QuantizerName(quantizer) + " " + std::to_string(width));
          ExpectAttention(shape, Same(quantizer, width), Backend::kSimd);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// K and V of a head leave the window at different times.
TEST_P(PagedAttentionTest, MixesQuantizersAndWidths) {
  const std::vector<QuantizerSpec> quantizers = QuantizersFor(64, 64);
  TestRandom random(5);
  for (int length = 1; length < 230; length += 13) {
    std::vector<GroupFormat> formats;
    for (int g = 0; g < 6; ++g) {
      const int widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
      formats.push_back({quantizers[random.Bits() % quantizers.size()],
                         widths[random.Bits() % 9]});
    }
    const int queries = std::min(length, 1 + length % kMaxDecodeQueries);
    for (const int window : {0, 5, 32, 100}) {
      ExpectAttention({.group = 3,
                       .page_tokens = 64,
                       .window = window,
                       .sequences = {{length, queries}, {length, 1}}},
                      formats, Backend::kSimd);
      if (HasFatalFailure()) return;
    }
  }
}

std::vector<int64_t> Targets() {
#if HWY_ARCH_X86
  return {HWY_AVX3, HWY_AVX2, HWY_SCALAR};
#else
  return {HWY_NEON, HWY_SCALAR};
#endif
}

INSTANTIATE_TEST_SUITE_P(All, PagedAttentionTest, testing::ValuesIn(Targets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(PagedAttention, ReferenceBackendIsScalar) {
  EXPECT_EQ(&GetAttentionKernels(Backend::kReference),
            &ScalarAttentionKernels());
}

// One key that all weight goes to, far above or below the others, anywhere.
TEST(PagedAttention, ExtremeLogitsStayExact) {
  for (const QuantizerSpec& quantizer : DefaultQuantizers()) {
    for (const float size : {3e4f, -3e4f}) {
      for (const int position : {0, 2, 40, 77, 130, 149}) {
        SCOPED_TRACE(QuantizerName(quantizer) + " " + std::to_string(position));
        AttentionCase test(
            {.page_tokens = 64, .sequences = {{150, 3}, {149, 1}}},
            Same(quantizer, 8));
        std::fill(test.queries().begin(), test.queries().end(), 40.0f);
        for (int s = 0; s < 2; ++s) {
          if (position >= 150 - s) continue;
          std::fill_n(test.Row(Tensor::kKey, s, 0, position), 64, size);
        }
        test.Fill();
        ExpectAttention(test, DType::kFloat32, Backend::kSimd);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Hundreds of parts on several threads: the same bits as on one.
TEST(PagedAttention, ThreadsAndBatchDontChangeTheResult) {
  std::vector<GroupFormat> formats;
  for (const QuantizerSpec& quantizer : DefaultQuantizers()) {
    formats.push_back({quantizer, 2});
    formats.push_back({quantizer, 7});
  }
  AttentionShape shape = {.head_dim = 128,
                          .group = 2,
                          .sequences = {{9001, 2}, {333, 1}, {2500, 3}}};
  AttentionCase batch(shape, formats);
  batch.Fill();
  ExpectAttention(batch, DType::kFloat32, Backend::kSimd);
  const std::vector<float> alone = batch.Run(Backend::kSimd);
  for (const int threads : {2, 5}) {
    const std::unique_ptr<LoopRunner> loops = MakeThreadPool(threads);
    for (int repeat = 0; repeat < 3; ++repeat) {
      EXPECT_EQ(batch.Run(Backend::kSimd, loops.get()), alone);
    }
  }
  shape.sequences.resize(1);
  AttentionCase first(shape, formats);
  // The first sequence's rows are the same: they are drawn first. Its queries
  // aren't.
  const int heads = 2 * static_cast<int>(formats.size()) / 2;
  const size_t floats = size_t{2} * heads * 128;
  for (int head = 0; head < heads; ++head) {
    std::copy_n(batch.queries().begin() + head * 6 * 128, 2 * 128,
                first.queries().begin() + head * 2 * 128);
  }
  first.Fill();
  EXPECT_EQ(first.Run(Backend::kSimd),
            std::vector<float>(alone.begin(), alone.begin() + floats));
}

TEST(PagedAttention, OneObjectServesOneStepAfterTheOther) {
  const std::vector<GroupFormat> formats = Same({}, 4);
  AttentionCase large({.group = 4, .sequences = {{500, 8}, {90, 8}}}, formats);
  AttentionCase small({.group = 4, .sequences = {{61, 2}}}, formats, 2);
  large.Fill();
  small.Fill();
  auto attention = PagedAttention::Create(large.LimitsFor(1, Backend::kSimd));
  ASSERT_TRUE(attention.ok()) << attention.status();
  const std::vector<float> expected = small.Run(Backend::kSimd);
  large.Run(**attention, nullptr);
  EXPECT_EQ(small.Run(**attention, nullptr), expected);
}

TEST(PagedAttention, OptionsOutOfRangeAreRefused) {
  const PagedAttention::Options good = {.query_heads = 8,
                                        .kv_heads = 2,
                                        .head_dim = 64,
                                        .max_entries = 1,
                                        .max_rows = 1,
                                        .max_threads = 1};
  ASSERT_TRUE(PagedAttention::Create(good).ok());
  const auto error = [&](auto change) {
    PagedAttention::Options options = good;
    change(options);
    const absl::Status status = PagedAttention::Create(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  using Options = PagedAttention::Options;
  EXPECT_THAT(error([](Options& o) { o.head_dim = 60; }),
              testing::HasSubstr("head_dim is 60"));
  EXPECT_THAT(error([](Options& o) { o.query_heads = 3; }),
              testing::HasSubstr("query_heads is 3 with 2"));
  EXPECT_THAT(error([](Options& o) { o.max_threads = 0; }),
              testing::HasSubstr("max_threads 0"));
}

}  // namespace
}  // namespace ratequant::kv
