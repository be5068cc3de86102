// Numbers, times and tables as people read them.

#include <gtest/gtest.h>

#include <limits>

#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "clients/cli/text_style.h"

namespace ratequant::cli {
namespace {

TEST(FormatTest, BytesAreInTheLargestUnitThatFits) {
  EXPECT_EQ(FormatBytes(0), "0 bytes");
  EXPECT_EQ(FormatBytes(1023), "1023 bytes");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{80} << 30), "80 GiB");
  EXPECT_EQ(FormatBytes((int64_t{31} << 30) + (256 << 20)), "31.25 GiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 50), "3072 TiB");
}

TEST(FormatTest, CountsHaveThousandsSeparators) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
}

TEST(FormatTest, SignificantDigitsStayAfterRounding) {
  EXPECT_EQ(FormatSignificant(0, 3), "0");
  EXPECT_EQ(FormatSignificant(0.012345, 3), "0.0123");
  EXPECT_EQ(FormatSignificant(0.0099996, 3), "0.0100");
  EXPECT_EQ(FormatSignificant(0.99996, 3), "1.00");
  EXPECT_EQ(FormatSignificant(46080, 3), "46080");
  EXPECT_EQ(FormatSignificant(-2.5, 2), "-2.5");
  EXPECT_EQ(FormatSignificant(4.17e-4, 3), "0.000417");
  EXPECT_EQ(FormatSignificant(1.234e-5, 3), "1.23e-05");
  EXPECT_EQ(FormatSignificant(1.5e6, 2), "1.5e+06");
  EXPECT_EQ(FormatSignificant(std::numeric_limits<double>::infinity(), 3),
            "inf");
}

TEST(FormatTest, PercentHasADecimalOnlyWhereItIsNeeded) {
  EXPECT_EQ(FormatPercent(0.381), "38%");
  EXPECT_EQ(FormatPercent(0.0042), "0.4%");
  EXPECT_EQ(FormatPercent(0.0096), "1%");
  EXPECT_EQ(FormatPercent(0), "0%");
}

TEST(FormatTest, TimeSpansNameTwoUnitsAtMost) {
  EXPECT_EQ(FormatTimeSpan(absl::Milliseconds(400)), "0 s");
  EXPECT_EQ(FormatTimeSpan(absl::Milliseconds(59400)), "59 s");
  EXPECT_EQ(FormatTimeSpan(absl::Milliseconds(59600)), "1 min 00 s");
  EXPECT_EQ(FormatTimeSpan(absl::Seconds(3725)), "1 h 02 min");
}

TEST(FormatTest, TimesAreUniversal) {
  google::protobuf::Timestamp time;
  EXPECT_EQ(FormatTimestamp(time), "-");
  time.set_seconds(1795507440);
  EXPECT_EQ(FormatTimestamp(time), "2026-11-24 08:04");
}

TEST(FormatTest, OnlyDigestsAreShortened) {
  EXPECT_EQ(ShortId(std::string(64, 'a')), "aaaaaaaaaaaa");
  EXPECT_EQ(ShortId(std::string(64, 'z')), std::string(64, 'z'));
  EXPECT_EQ(ShortId("latest"), "latest");
}

TEST(TableTest, ColumnsAreAlignedAndLinesEndInNoSpace) {
  Table table({{"MODEL"}, {"LAYERS", Align::kRight}, {"NOTE"}});
  table.AddRow({"a-long-model", "4", "x"});
  table.AddRow({"é", "128"});
  EXPECT_EQ(table.Render({}),
            "MODEL         LAYERS  NOTE\n"
            "a-long-model       4  x\n"
            "é                128\n");
}

TEST(TableTest, TitlesAreBoldWhereThereIsColour) {
  Table table({{"A"}});
  table.AddRow({"1"});
  EXPECT_EQ(table.Render({.colour = true}), "\x1b[1mA\x1b[0m\n1\n");
}

TEST(TableTest, PairsAlignAndLeaveOutWhatIsEmpty) {
  EXPECT_EQ(RenderPairs({{"a", "1"}, {"longest", ""}, {"long", "2\n3"}}, {}),
            "a     1\n"
            "long  2\n"
            "      3\n");
}

TEST(TextStyleTest, WidthsCountCharactersNotBytes) {
  EXPECT_EQ(DisplayWidth("█é-"), 3);
  EXPECT_EQ(PadLeft("é", 3), "  é");
  EXPECT_EQ(PadRight("abcd", 3), "abcd");
}

}  // namespace
}  // namespace ratequant::cli
