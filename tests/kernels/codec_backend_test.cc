// Every backend and instruction set writes the reference's bytes and decodes
// the reference's floats, bit for bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "hwy/targets.h"
#include "kernels/cpu/row_kernels.h"
#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

constexpr int kPageTokens = 64;
constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16,
                             DType::kBFloat16};

std::unique_ptr<Codec> MakeCodec(Codec::Options options, Backend backend) {
  options.backend = backend;
  auto codec = Codec::Create(options);
  EXPECT_TRUE(codec.ok()) << codec.status();
  return *std::move(codec);
}

std::vector<uint8_t> Encode(const Codec& codec,
                            const std::vector<uint8_t>& rows, DType dtype,
                            int stride, int first, int count, int skip) {
  // Filled, so that a byte that isn't written shows.
  std::vector<uint8_t> section(codec.layout().section_bytes, 0xA5);
  const absl::Status status =
      codec.Encode({rows.data(), dtype, stride}, first, count, skip,
                   absl::MakeSpan(section));
  EXPECT_TRUE(status.ok()) << status;
  return section;
}

std::vector<uint8_t> Decode(const Codec& codec,
                            const std::vector<uint8_t>& section, DType dtype,
                            int stride, int first, int count) {
  std::vector<uint8_t> out(size_t(count) * stride * ElementSize(dtype), 0x3C);
  const absl::Status status =
      codec.Decode(section, first, count, {out.data(), dtype, stride});
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

// One configuration, one range of rows, all element types.
void ExpectSameBits(const Codec::Options& options, int first, int count,
                    int skip) {
  SCOPED_TRACE(Describe(options) + ", rows " + std::to_string(first) + "+" +
               std::to_string(count) + ", skip " + std::to_string(skip));
  const auto reference = MakeCodec(options, Backend::kReference);
  const auto simd = MakeCodec(options, Backend::kSimd);
  const int dim = options.head_dim;
  const int stride = dim + 3;  // rows aren't aligned
  for (const DType dtype : kDTypes) {
    const std::vector<uint8_t> rows = StoreAs(
        MakeRows(count, dim, dim * 1000 + options.width), dtype, dim, stride);
    const std::vector<uint8_t> expected =
        Encode(*reference, rows, dtype, stride, first, count, skip);
    ASSERT_EQ(Encode(*simd, rows, dtype, stride, first, count, skip), expected);
    for (const DType out : kDTypes) {
      ASSERT_EQ(Decode(*simd, expected, out, stride, first, count),
                Decode(*reference, expected, out, stride, first, count));
    }
  }
}

class BackendTest
    : public testing::TestWithParam<std::tuple<int64_t, int, Tensor>> {
 protected:
  void SetUp() override {
    const int64_t target = std::get<0>(GetParam());
    if ((hwy::SupportedTargets() & target) == 0) {
      GTEST_SKIP() << "this CPU has no " << hwy::TargetName(target);
    }
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ASSERT_NE(GetEncodeRows(), nullptr);
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_P(BackendTest, MatchesReferenceBitForBit) {
  const auto [target, dim, tensor] = GetParam();
  for (const QuantizerSpec& quantizer : QuantizersFor(dim, kPageTokens)) {
    for (const int width : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
      const Codec::Options options = {quantizer, tensor,      width,
                                      dim,       kPageTokens, Backend::kSimd};
      const auto codec = MakeCodec(options, Backend::kReference);
      const int granule = codec->token_granule();
      ExpectSameBits(options, 0, kPageTokens, 0);
      ExpectSameBits(options, 0, granule, granule);
      ExpectSameBits(options, granule == 1 ? 5 : 0, granule == 1 ? 13 : granule,
                     7);
      ExpectSameBits(options, kPageTokens - granule, granule, 4);
      if (HasFatalFailure()) return;
    }
  }
}

std::string NameOf(
    const testing::TestParamInfo<std::tuple<int64_t, int, Tensor>>& info) {
  const auto [target, dim, tensor] = info.param;
  return std::string(hwy::TargetName(target)) + "_" + std::to_string(dim) +
         (tensor == Tensor::kKey ? "_K" : "_V");
}

std::vector<int64_t> VectorTargets() {
#if HWY_ARCH_X86
  return {HWY_AVX3, HWY_AVX2};
#else
  return {HWY_NEON};
#endif
}

INSTANTIATE_TEST_SUITE_P(
    All, BackendTest,
    testing::Combine(testing::ValuesIn(VectorTargets()),
                     testing::Values(8, 16, 24, 64, 80, 96, 128, 256, 512),
                     testing::Values(Tensor::kKey, Tensor::kValue)),
    NameOf);

TEST(CpuWithoutVectors, FallsBackToTheReference) {
  hwy::SetSupportedTargetsForTest(HWY_SCALAR);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_EQ(GetEncodeRows(), nullptr);
  QuantizerSpec quantizer;
  quantizer.kind = QuantizerKind::kTurboquant;
  ExpectSameBits({quantizer, Tensor::kValue, 3, 64, 32, Backend::kSimd}, 0, 32,
                 4);
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace
}  // namespace ratequant::kv
