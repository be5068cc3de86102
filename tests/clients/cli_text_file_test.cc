// Calibration texts are checked before they are sent.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "clients/cli/text_file.h"

namespace ratequant::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

class TextFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              absl::StrCat("ratequant-text-", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& bytes) {
    std::string path = folder_ / "text.txt";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::string Error(const std::string& path) {
    auto text = ReadTextFile(path);
    EXPECT_FALSE(text.ok());
    return std::string(text.status().message());
  }

  std::filesystem::path folder_;
};

TEST_F(TextFileTest, TextIsReadAsItIs) {
  auto text = ReadTextFile(Write("Zoë\r\n日本 🎉\n"));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "Zoë\r\n日本 🎉\n");
}

TEST_F(TextFileTest, MissingFolderAndUnreadableAreSaid) {
  EXPECT_THAT(Error(folder_ / "none"), EndsWith("No such file or directory"));
  EXPECT_THAT(Error(folder_), EndsWith("is a folder; give a text file"));
}

TEST_F(TextFileTest, EmptyAndBlankTextsAreRefused) {
  EXPECT_THAT(Error(Write("")), EndsWith("holds no text"));
  EXPECT_THAT(Error(Write(" \n\t\n")), EndsWith("holds no text"));
}

TEST_F(TextFileTest, TheFirstByteThatIsNotUtf8IsNamed) {
  EXPECT_THAT(Error(Write("one\ntwo\nth\xe9ree\n")),
              HasSubstr("is not UTF-8: line 3, byte 10 of the file, is 0xe9"));
}

TEST_F(TextFileTest, ATextLargerThanAMessageIsRefused) {
  EXPECT_THAT(Error(Write(std::string((63u << 20) + 1, 'a'))),
              HasSubstr("has more than 66,060,288 bytes"));
}

TEST(Utf8Test, WellFormedSequencesPass) {
  for (const char* text : {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(FindInvalidUtf8(text), absl::string_view::npos) << text;
  }
}

TEST(Utf8Test, IllFormedSequencesAreFoundWhereTheyBegin) {
  for (const char* tail : {
           "\x80",              // continuation without a lead
           "\xc0\x80",          // overlong
           "\xc1\xbf",          // overlong
           "\xe0\x9f\xbf",      // overlong
           "\xf0\x8f\xbf\xbf",  // overlong
           "\xed\xa0\x80",      // surrogate
           "\xf4\x90\x80\x80",  // above U+10FFFF
           "\xf5\x80\x80\x80",  // no such lead
           "\xe2\x82",          // cut short
           "\xe2\x28\xa1",      // continuation missing
           "\xff",
       }) {
    EXPECT_EQ(FindInvalidUtf8(absl::StrCat("ab", tail)), 2u);
  }
}

}  // namespace
}  // namespace ratequant::cli
