#include "services/common/quantizers.h"

#include "gtest/gtest.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

v1::Quantizer Of(v1::Quantizer::Kind kind) {
  v1::Quantizer quantizer;
  quantizer.set_kind(kind);
  return quantizer;
}

TEST(QuantizersTest, DefaultsAreFilledIn) {
  EXPECT_EQ(CanonicalQuantizer(Of(v1::Quantizer::KIVI), "q")->group_size(),
            32u);
  const auto turbo = CanonicalQuantizer(Of(v1::Quantizer::TURBOQUANT), "q");
  EXPECT_EQ(turbo->key_scale(), v1::Quantizer::L2);
  EXPECT_EQ(turbo->value_scale(), v1::Quantizer::UNBIASED);
  EXPECT_EQ(CanonicalQuantizer(Of(v1::Quantizer::RTN), "q")->group_size(), 0u);
}

TEST(QuantizersTest, CanonicalFormIsAFixedPoint) {
  for (auto kind : {v1::Quantizer::RTN, v1::Quantizer::KIVI,
                    v1::Quantizer::QUAROT, v1::Quantizer::TURBOQUANT}) {
    const auto once = CanonicalQuantizer(Of(kind), "q");
    const auto twice = CanonicalQuantizer(*once, "q");
    EXPECT_EQ(once->SerializeAsString(), twice->SerializeAsString());
  }
}

TEST(QuantizersTest, WhatIsNotSupportedIsNamed) {
  v1::Quantizer kind_zero;
  v1::Quantizer kind_nine;
  kind_nine.set_kind(static_cast<v1::Quantizer::Kind>(9));
  v1::Quantizer kivi48 = Of(v1::Quantizer::KIVI);
  kivi48.set_group_size(48);
  v1::Quantizer rtn_group = Of(v1::Quantizer::RTN);
  rtn_group.set_group_size(32);
  v1::Quantizer kivi_seed = Of(v1::Quantizer::KIVI);
  kivi_seed.set_seed(1);
  v1::Quantizer quarot_scale = Of(v1::Quantizer::QUAROT);
  quarot_scale.set_value_scale(v1::Quantizer::L2);
  v1::Quantizer scale_seven = Of(v1::Quantizer::TURBOQUANT);
  scale_seven.set_key_scale(static_cast<v1::Quantizer::Scale>(7));
  const std::pair<v1::Quantizer, const char*> cases[] = {
      {kind_zero, "quantizers[1].kind"},
      {kind_nine, "quantizers[1].kind"},
      {kivi48, "quantizers[1].group_size"},
      {rtn_group, "quantizers[1].group_size"},
      {kivi_seed, "quantizers[1].seed"},
      {quarot_scale, "quantizers[1].value_scale"},
      {scale_seven, "quantizers[1].key_scale"}};
  for (const auto& [quantizer, field] : cases) {
    const auto canonical = CanonicalQuantizer(quantizer, "quantizers[1]");
    ASSERT_FALSE(canonical.ok()) << quantizer.ShortDebugString();
    EXPECT_EQ(ErrorReason(canonical.status()), "UNSUPPORTED_QUANTIZER");
    EXPECT_EQ(FieldViolations(canonical.status()).at(0).field, field);
  }
}

TEST(QuantizersTest, TextNamesOnlyWhatDiffersFromTheDefault) {
  v1::Quantizer turbo = Of(v1::Quantizer::TURBOQUANT);
  EXPECT_EQ(QuantizerText(*CanonicalQuantizer(turbo, "q")), "turboquant");
  turbo.set_seed(7);
  turbo.set_value_scale(v1::Quantizer::L2);
  EXPECT_EQ(QuantizerText(*CanonicalQuantizer(turbo, "q")),
            "turboquant:seed=7,value_scale=l2");
  v1::Quantizer kivi = Of(v1::Quantizer::KIVI);
  kivi.set_group_size(64);
  EXPECT_EQ(QuantizerText(*CanonicalQuantizer(kivi, "q")),
            "kivi:group_size=64");
}

TEST(QuantizersTest, OrderIsByKindThenParameters) {
  const auto rtn = *CanonicalQuantizer(Of(v1::Quantizer::RTN), "q");
  auto kivi = *CanonicalQuantizer(Of(v1::Quantizer::KIVI), "q");
  auto kivi64 = kivi;
  kivi64.set_group_size(64);
  EXPECT_LT(CompareQuantizers(rtn, kivi), 0);
  EXPECT_LT(CompareQuantizers(kivi, kivi64), 0);
  EXPECT_GT(CompareQuantizers(kivi64, rtn), 0);
  EXPECT_EQ(CompareQuantizers(kivi, kivi), 0);
}

}  // namespace
}  // namespace ratequant
