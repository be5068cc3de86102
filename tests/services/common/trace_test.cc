#include "services/common/trace.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ratequant {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kSpan[] = "00f067aa0ba902b7";

std::string Header(const std::string& version = "00",
                   const std::string& rest = "") {
  return version + "-" + kTrace + "-" + kSpan + "-01" + rest;
}

CallIds Named(const char* request_id) {
  CallIds ids;
  ids.request_id = request_id;
  return ids;
}

TEST(TraceParentTest, IsReadAndWritten) {
  const auto trace = ParseTraceParent(Header());
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id, kTrace);
  EXPECT_EQ(trace->parent_id, kSpan);
  EXPECT_EQ(trace->flags, "01");
  EXPECT_EQ(trace->ToString(), Header());
}

TEST(TraceParentTest, ALaterVersionIsReadAsThisOne) {
  for (const std::string& later : {Header("01"), Header("cc", "-more")}) {
    const auto trace = ParseTraceParent(later);
    ASSERT_TRUE(trace.has_value()) << later;
    EXPECT_EQ(trace->ToString(), Header());
  }
}

TEST(TraceParentTest, WhatTheStandardForbidsIsRefused) {
  const std::string good = Header();
  std::set<std::string> bad = {"",
                               "00",
                               good.substr(1),
                               good + "0",
                               Header("00", "-more"),
                               Header("ff"),
                               Header("cc", "more"),
                               Header("0G")};
  std::string zero_trace = good, zero_span = good, upper = good;
  zero_trace.replace(3, 32, 32, '0');
  zero_span.replace(36, 16, 16, '0');
  upper[3] = 'A';
  bad.insert({zero_trace, zero_span, upper});
  for (const size_t separator : {2, 35, 52}) {
    std::string other = good;
    other[separator] = '_';
    bad.insert(other);
  }
  for (const std::string& text : bad) {
    EXPECT_FALSE(ParseTraceParent(text).has_value()) << text;
  }
}

TEST(RequestIdTest, IsVisibleAsciiAndShort) {
  EXPECT_TRUE(IsRequestId("a"));
  EXPECT_TRUE(IsRequestId("7f/{}!~"));
  EXPECT_TRUE(IsRequestId(std::string(128, 'x')));
  for (const std::string& bad :
       {std::string(), std::string(129, 'x'), std::string("a b"),
        std::string("a\n"), std::string("\x7f"), std::string("\xc3\xa9"),
        std::string("\0", 1)}) {
    EXPECT_FALSE(IsRequestId(bad)) << bad;
  }
}

TEST(RandomHexTest, HasTheLengthAndDiffers) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string hex = RandomHex(32);
    EXPECT_EQ(hex.size(), 32u);
    EXPECT_EQ(hex.find_first_not_of("0123456789abcdef"), std::string::npos);
    seen.insert(hex);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(CallScopeTest, ScopesNestAndEnd) {
  EXPECT_EQ(CurrentCall(), nullptr);
  {
    const CallScope outer(Named("outer"));
    {
      const CallScope inner(Named("inner"));
      EXPECT_EQ(CurrentCall()->request_id, "inner");
    }
    EXPECT_EQ(CurrentCall()->request_id, "outer");
  }
  EXPECT_EQ(CurrentCall(), nullptr);
}

TEST(CallIdsTest, GoAlongAsMetadata) {
  CallIds ids = Named("r");
  ids.trace_state = "vendor=1";
  // State without a trace means nothing.
  EXPECT_THAT(ids.Metadata(), ElementsAre(Pair("x-request-id", "r")));
  ids.trace = ParseTraceParent(Header());
  EXPECT_THAT(ids.Metadata(), ElementsAre(Pair("x-request-id", "r"),
                                          Pair("traceparent", Header()),
                                          Pair("tracestate", "vendor=1")));
}

}  // namespace
}  // namespace ratequant
