// The encoding and decoding kernels write the bytes and floats of the reference
// codec, whatever order their threads run in.

#include <memory>

#include "gtest/gtest.h"
#include "ratequant/kv/codec.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/kernels/cuda/scalar_oracle.h"
#include "tests/kernels/cuda/section_batch.h"

namespace ratequant::kv::cuda {
namespace {

class ReferenceOracle final : public Oracle {
 public:
  void Encode(const BatchCase& batch, const SectionCase& section_case,
              const void* rows, uint8_t* section) const override {
    const std::unique_ptr<Codec> codec = MakeCodec(batch, section_case);
    const absl::Status status =
        codec->Encode({rows, batch.dtype, batch.row_stride}, section_case.first,
                      section_case.count, section_case.skip_tokens,
                      {section, codec->layout().section_bytes});
    ASSERT_TRUE(status.ok()) << status;
  }

  void Decode(const BatchCase& batch, const SectionCase& section_case,
              const uint8_t* section, int first, int count,
              void* rows) const override {
    const std::unique_ptr<Codec> codec = MakeCodec(batch, section_case);
    const absl::Status status =
        codec->Decode({section, codec->layout().section_bytes}, first, count,
                      {rows, batch.dtype, batch.row_stride});
    ASSERT_TRUE(status.ok()) << status;
  }

 private:
  static std::unique_ptr<Codec> MakeCodec(const BatchCase& batch,
                                          const SectionCase& section_case) {
    const FormatSpec& format = section_case.format;
    auto codec =
        Codec::Create({format.quantizer, format.tensor, format.width,
                       batch.head_dim, batch.page_tokens, Backend::kReference});
    EXPECT_TRUE(codec.ok()) << codec.status();
    return *std::move(codec);
  }
};

std::string NameOf(const ::testing::TestParamInfo<BatchCase>& info) {
  return info.param.name;
}

class EveryFormat : public ::testing::TestWithParam<BatchCase> {};
INSTANTIATE_TEST_SUITE_P(Batches, EveryFormat,
                         ::testing::ValuesIn(BatchCases(Coverage::kAll)),
                         NameOf);

TEST_P(EveryFormat, KernelsAgreeWithTheReferenceCodec) {
  EXPECT_EQ(CheckBatch(GetParam(), ReferenceOracle()), "");
}

// What GPU machines compare with.
TEST_P(EveryFormat, TheScalarOracleAgreesWithTheReferenceCodec) {
  const BatchCase& batch = GetParam();
  const ReferenceOracle reference;
  const ScalarOracle scalar;
  for (size_t i = 0; i < batch.sections.size(); ++i) {
    const SectionCase& s = batch.sections[i];
    const std::vector<uint8_t> rows = RowsOf(batch, static_cast<int>(i));
    const size_t bytes =
        MakeSectionLayout(s.format.quantizer, s.format.tensor, s.format.width,
                          batch.head_dim, batch.page_tokens)
            .section_bytes;
    std::vector<uint8_t> expected(bytes, 0xEE), got(bytes, 0xEE);
    reference.Encode(batch, s, rows.data(), expected.data());
    scalar.Encode(batch, s, rows.data(), got.data());
    ASSERT_EQ(got, expected) << "section " << i;
    std::vector<uint8_t> decoded(rows.size()), scalar_decoded(rows.size());
    reference.Decode(batch, s, expected.data(), s.first, s.count,
                     decoded.data());
    scalar.Decode(batch, s, expected.data(), s.first, s.count,
                  scalar_decoded.data());
    ASSERT_EQ(scalar_decoded, decoded) << "section " << i;
  }
}

class ShuffledSchedule : public ::testing::TestWithParam<uint32_t> {
 protected:
  ::cuda_on_cpu::ScopedSchedule schedule_{
      {.seed = GetParam(), .workers = 1 + GetParam() % 2}};
};
INSTANTIATE_TEST_SUITE_P(Seeds, ShuffledSchedule,
                         ::testing::Values(0u, 1u, 2u, 3u));

TEST_P(ShuffledSchedule, DoesNotChangeTheBytes) {
  for (const BatchCase& batch : BatchCases(Coverage::kSome)) {
    EXPECT_EQ(CheckBatch(batch, ReferenceOracle()), "");
  }
}

TEST_P(ShuffledSchedule, DoesNotChangeWhichFaultIsReported) {
  EXPECT_EQ(CheckFaults(), "");
}

}  // namespace
}  // namespace ratequant::kv::cuda
