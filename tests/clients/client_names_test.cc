// Resource names and quantizer texts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::client {
namespace {

using ::testing::HasSubstr;

TEST(ResourceNamesTest, HubNamesIdsAndResourceNamesNameTheSameModel) {
  for (const char* text :
       {"Qwen/Qwen3-8B", "Qwen--Qwen3-8B", "models/Qwen--Qwen3-8B"}) {
    EXPECT_EQ(ModelName(text), "models/Qwen--Qwen3-8B") << text;
  }
}

TEST(ResourceNamesTest, CalibrationNamesTakeIdsAndWholeNames) {
  EXPECT_EQ(CalibrationName("org/m", "latest"),
            "models/org--m/calibrations/latest");
  EXPECT_EQ(CalibrationName("", "models/m/calibrations/a"),
            "models/m/calibrations/a");
}

TEST(ResourceNamesTest, PartsOfANameAreFound) {
  EXPECT_EQ(ResourceId("models/m/bitMaps/abc"), "abc");
  EXPECT_EQ(ResourceId("abc"), "abc");
  EXPECT_EQ(ModelIdOf("models/m/calibrations/abc"), "m");
  EXPECT_EQ(ModelIdOf("models/m"), "m");
  EXPECT_EQ(ModelIdOf("abc"), "");
}

TEST(QuantizerTextTest, FieldsThatApplyAreFilledIn) {
  auto kivi = QuantizerFromText("kivi");
  ASSERT_TRUE(kivi.ok()) << kivi.status();
  EXPECT_EQ(kivi->kind(), v1::Quantizer::KIVI);
  EXPECT_EQ(kivi->group_size(), 32u);
  EXPECT_EQ(kivi->key_scale(), v1::Quantizer::SCALE_UNSPECIFIED);

  auto turbo = QuantizerFromText("turboquant:seed=7");
  ASSERT_TRUE(turbo.ok()) << turbo.status();
  EXPECT_EQ(turbo->seed(), 7u);
  EXPECT_EQ(turbo->group_size(), 0u);
  EXPECT_EQ(turbo->key_scale(), v1::Quantizer::L2);
  EXPECT_EQ(turbo->value_scale(), v1::Quantizer::UNBIASED);
}

TEST(QuantizerTextTest, TextsComeBackAsTheyWere) {
  for (const char* text :
       {"rtn", "kivi", "kivi:group_size=64", "quarot", "quarot:seed=3",
        "turboquant", "turboquant:value_scale=l2"}) {
    auto quantizer = QuantizerFromText(text);
    ASSERT_TRUE(quantizer.ok()) << quantizer.status();
    EXPECT_EQ(QuantizerText(*quantizer), text);
  }
}

TEST(QuantizerTextTest, FieldsLeftAtZeroMeanDefaults) {
  v1::Quantizer quantizer;
  quantizer.set_kind(v1::Quantizer::TURBOQUANT);
  EXPECT_EQ(QuantizerText(quantizer), "turboquant");
}

TEST(QuantizerTextTest, AKindThisClientDoesNotKnowIsNamedByNumber) {
  v1::Quantizer quantizer;
  quantizer.set_kind(static_cast<v1::Quantizer::Kind>(42));
  EXPECT_EQ(QuantizerText(quantizer), "quantizer#42");
}

TEST(QuantizerTextTest, UnknownTextsNameWhatIsSupported) {
  auto quantizer = QuantizerFromText("awq");
  EXPECT_TRUE(absl::IsInvalidArgument(quantizer.status()));
  EXPECT_THAT(std::string(quantizer.status().message()), HasSubstr("'awq'"));
  EXPECT_THAT(std::string(quantizer.status().message()),
              HasSubstr("turboquant"));
}

}  // namespace
}  // namespace ratequant::client
