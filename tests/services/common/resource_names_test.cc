#include "services/common/resource_names.h"

#include <string>

#include "gtest/gtest.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

const std::string kDigest(64, 'a');

TEST(ResourceNamesTest, FormatsAreParsedBack) {
  EXPECT_EQ(ModelName("Qwen--Qwen3-8B"), "models/Qwen--Qwen3-8B");
  EXPECT_EQ(*ParseModelName("models/Qwen--Qwen3-8B", "model"),
            "Qwen--Qwen3-8B");
  const auto calibration =
      ParseCalibrationName(CalibrationName("m", kDigest), "name");
  ASSERT_TRUE(calibration.ok());
  EXPECT_EQ(calibration->model, "m");
  EXPECT_EQ(calibration->id, kDigest);
  const auto map = ParseBitMapName(BitMapName("m.1_2", kDigest), "name");
  ASSERT_TRUE(map.ok());
  EXPECT_EQ(map->model, "m.1_2");
  EXPECT_EQ(ParseCalibrationName("models/m/calibrations/latest", "name")->id,
            "latest");
}

TEST(ResourceNamesTest, ModelIdsFollowTheDocumentedPattern) {
  for (const std::string& good :
       {std::string("a"), std::string("A.b_c-9"), std::string(128, 'x')}) {
    EXPECT_TRUE(IsModelId(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string(".a"), std::string("-a"), std::string("a/b"),
        std::string("a b"), std::string(129, 'x'), std::string("\xc3\xbc"),
        std::string("a\0b", 3)}) {
    EXPECT_FALSE(IsModelId(bad)) << bad;
  }
}

TEST(ResourceNamesTest, BadNamesSayWhichFieldAndWhatIsExpected) {
  for (const char* bad :
       {"", "models", "models/", "models/a/", "Models/a", "models/.a",
        "models/a/b", "/models/a", "models//a"}) {
    const auto parsed = ParseModelName(bad, "parent");
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(ErrorReason(parsed.status()), "INVALID_NAME");
    EXPECT_EQ(FieldViolations(parsed.status()).at(0).field, "parent");
  }
  for (const std::string& bad :
       {"models/a/calibrations/" + std::string(63, 'a'),
        "models/a/calibrations/" + std::string(64, 'A'),
        "models/a/bitMaps/" + kDigest,
        "models/a/calibrations/" + kDigest + "/x",
        std::string("models/a/calibrations/Latest")}) {
    const auto parsed = ParseCalibrationName(bad, "name");
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(ErrorReason(parsed.status()), "INVALID_NAME");
  }
  EXPECT_FALSE(ParseBitMapName("models/a/bitMaps/latest", "name").ok());
}

}  // namespace
}  // namespace ratequant
