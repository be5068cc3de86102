#include "services/common/logging.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/trace.h"
#include "spdlog/spdlog.h"

namespace ratequant {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

CallIds Named(const char* request_id) {
  CallIds ids;
  ids.request_id = request_id;
  return ids;
}

TEST(LoggingTest, AJsonLineIsOneObjectWhateverTheMessageHolds) {
  ASSERT_TRUE(InitLogging("prog", "info", "json").ok());
  CaptureStderr();
  {
    const CallScope call(Named("id-1"));
    const LogFields fields({{"method", "a/B"}, {"reason", ""}},
                           {{"seconds", 0.5}});
    spdlog::warn("quote \" newline \n not UTF-8 \xff end");
  }
  const std::string line = GetCapturedStderr();
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["program"], "prog");
  EXPECT_EQ(json["request_id"], "id-1");
  EXPECT_EQ(json["method"], "a/B");
  EXPECT_EQ(json["seconds"], 0.5);
  EXPECT_FALSE(json.contains("reason"));
  EXPECT_FALSE(json.contains("trace_id"));
  EXPECT_THAT(json["message"].get<std::string>(),
              HasSubstr("quote \" newline \n not UTF-8 "));
  EXPECT_THAT(json["time"].get<std::string>(),
              ContainsRegex("^[0-9-]{10}T[0-9:]{8}\\.[0-9]{3}Z$"));
}

TEST(LoggingTest, ATextLineNamesTheCall) {
  ASSERT_TRUE(InitLogging("prog", "info", "text").ok());
  CaptureStderr();
  spdlog::info("alone");
  {
    const CallScope call(Named("id-1"));
    spdlog::info("inside");
  }
  const std::string lines = GetCapturedStderr();
  EXPECT_THAT(lines, HasSubstr("Z info    prog: alone\n"));
  EXPECT_THAT(lines, HasSubstr("Z info    prog: inside request_id=id-1\n"));
}

TEST(LoggingTest, TheNewestProblemsAreKept) {
  ASSERT_TRUE(InitLogging("prog", "info", "text").ok());
  CaptureStderr();
  spdlog::info("no problem");
  for (int i = 0; i < 60; ++i) spdlog::warn("problem {}", i);
  GetCapturedStderr();
  const std::vector<std::string> problems = RecentProblems();
  ASSERT_EQ(problems.size(), 50u);
  EXPECT_THAT(problems.front(), HasSubstr("problem 10"));
  EXPECT_THAT(problems.back(), HasSubstr("problem 59"));
}

TEST(LoggingTest, WhatIsNoLevelOrFormatIsNamed) {
  EXPECT_THAT(std::string(InitLogging("p", "loud", "text").message()),
              HasSubstr("'loud' isn't a log level"));
  EXPECT_THAT(std::string(InitLogging("p", "info", "xml").message()),
              HasSubstr("'xml' isn't a log format; use text or json"));
}

}  // namespace
}  // namespace ratequant
