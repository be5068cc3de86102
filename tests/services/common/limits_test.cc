#include "services/common/limits.h"

#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

class ClientMeterTest : public ::testing::Test {
 protected:
  ClientMeter Make(const ClientLimits& limits, size_t max_clients = 100) {
    return ClientMeter(limits, max_clients, [this] { return now_; });
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
};

absl::Duration RetryDelayOf(const absl::Status& status) {
  google::rpc::RetryInfo info;
  const auto payload =
      status.GetPayload("type.googleapis.com/google.rpc.RetryInfo");
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) {
    return absl::InfiniteDuration();
  }
  return absl::Seconds(info.retry_delay().seconds()) +
         absl::Nanoseconds(info.retry_delay().nanos());
}

TEST_F(ClientMeterTest, ABucketEmptiesAndFillsForEachClientByItself) {
  ClientMeter meter = Make({.rate = 2, .burst = 3, .in_flight = 0});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(meter.Count("a").ok());
  const absl::Status refused = meter.Count("a");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "RATE_LIMITED");
  EXPECT_EQ(RetryDelayOf(refused), absl::Milliseconds(500));
  EXPECT_TRUE(meter.Count("b").ok());
  now_ += absl::Milliseconds(500);
  EXPECT_TRUE(meter.Count("a").ok());
  EXPECT_FALSE(meter.Count("a").ok());
  // However long it is quiet, no more than the burst.
  now_ += absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(meter.Count("a").ok());
  EXPECT_FALSE(meter.Count("a").ok());
}

TEST_F(ClientMeterTest, PlacesAreGivenBack) {
  ClientMeter meter = Make({.rate = 0, .burst = 1, .in_flight = 2});
  auto first = meter.Enter("a");
  auto second = meter.Enter("a");
  ASSERT_TRUE(first.ok() && second.ok());
  const auto third = meter.Enter("a");
  EXPECT_EQ(ErrorReason(third.status()), "TOO_MANY_CALLS");
  EXPECT_LT(RetryDelayOf(third.status()), absl::Seconds(10));
  EXPECT_TRUE(meter.Enter("b").ok());
  const CallPlace copy = *first;
  *first = CallPlace();
  EXPECT_FALSE(meter.Enter("a").ok()) << "the copy still holds the place";
  *second = CallPlace();
  EXPECT_TRUE(meter.Enter("a").ok());
}

TEST_F(ClientMeterTest, NoLimitsLetEverythingIn) {
  ClientMeter meter = Make({.rate = 0, .burst = 1, .in_flight = 0});
  std::vector<CallPlace> places;
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(meter.Count("a").ok());
    auto place = meter.Enter("a");
    ASSERT_TRUE(place.ok());
    places.push_back(*std::move(place));
  }
}

TEST_F(ClientMeterTest, OfTooManyTheLongestQuietIsForgottenUnlessItHasCalls) {
  ClientMeter meter = Make({.rate = 1, .burst = 1, .in_flight = 1}, 2);
  const auto busy = meter.Enter("busy");
  ASSERT_TRUE(busy.ok());
  EXPECT_TRUE(meter.Count("quiet").ok());
  EXPECT_FALSE(meter.Count("quiet").ok());
  EXPECT_TRUE(meter.Count("new").ok());  // in the place of "quiet"
  EXPECT_FALSE(meter.Enter("busy").ok());
  EXPECT_TRUE(meter.Count("quiet").ok()) << "it begins anew";
}

}  // namespace
}  // namespace ratequant
