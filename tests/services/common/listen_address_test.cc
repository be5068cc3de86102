#include "services/common/listen_address.h"

#include "gtest/gtest.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

TEST(ListenAddressTest, ParsesAddressesAndKnowsLoopback) {
  EXPECT_TRUE(ParseListenAddress("127.0.0.1:50061")->loopback);
  EXPECT_EQ(ParseListenAddress("127.0.0.1:50061")->port, 50061);
  EXPECT_TRUE(ParseListenAddress("127.8.9.1:0")->loopback);
  EXPECT_EQ(ParseListenAddress("localhost:7")->ToString(), "127.0.0.1:7");
  EXPECT_TRUE(ParseListenAddress("[::1]:0")->loopback);
  EXPECT_EQ(ParseListenAddress("[::1]:9")->ToString(), "[::1]:9");
  EXPECT_FALSE(ParseListenAddress("0.0.0.0:0")->loopback);
  EXPECT_FALSE(ParseListenAddress("[::]:0")->loopback);
  EXPECT_FALSE(ParseListenAddress("10.1.2.3:0")->loopback);
}

TEST(ListenAddressTest, WhatIsNotAnAddressIsRefused) {
  for (const char* bad : {"", "50061", "127.0.0.1", "127.0.0.1:", "::1:5",
                          "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http",
                          "example.org:1", "[127.0.0.1:1", "1.2.3:4"}) {
    const auto address = ParseListenAddress(bad);
    ASSERT_FALSE(address.ok()) << bad;
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace ratequant
