#include "services/common/metrics.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ratequant {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, TheSameNameAndLabelsAreTheSameMetric) {
  Metrics& metrics = Metrics::Get();
  metrics.Counter("a_total", "help", {{"x", "1"}}).Increment();
  metrics.Counter("a_total", "help", {{"x", "1"}}).Increment();
  metrics.Counter("a_total", "help", {{"x", "2"}}).Increment();
  EXPECT_THAT(metrics.Text(), HasSubstr("a_total{x=\"1\"} 2\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("a_total{x=\"2\"} 1\n"));
}

TEST(MetricsTest, SamplesAreTakenWhileTheyAreWanted) {
  double value = 1;
  auto one = Metrics::Get().Sample([&](MetricSamples* out) {
    out->Gauge("b", "help", value, {{"from", "one"}});
  });
  auto two = Metrics::Get().Sample([](MetricSamples* out) {
    out->Gauge("b", "help", 7, {{"from", "two"}});
  });
  value = 3;
  std::string text = Metrics::Get().Text();
  EXPECT_THAT(text, HasSubstr("b{from=\"one\"} 3\nb{from=\"two\"} 7\n"));
  // One family, however many have a part in it.
  EXPECT_EQ(text.find("# TYPE b gauge"), text.rfind("# TYPE b gauge"));
  one.reset();
  text = Metrics::Get().Text();
  EXPECT_THAT(text, Not(HasSubstr("from=\"one\"")));
  EXPECT_THAT(text, HasSubstr("from=\"two\""));
}

TEST(MetricsTest, DurationsFallIntoTheirBuckets) {
  Metrics::Get().Durations("c_seconds", "help").Observe(0.0015);
  const std::string text = Metrics::Get().Text();
  EXPECT_THAT(text, HasSubstr("c_seconds_bucket{le=\"0.001\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("c_seconds_bucket{le=\"0.002\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("c_seconds_count 1\n"));
}

TEST(MetricsTest, AFolderThatIsGoneHasNoDisk) {
  MetricSamples samples;
  SampleDisk("gone", "/no/such/folder", &samples);
  EXPECT_TRUE(samples.Take().empty());
  SampleDisk("here", "/", &samples);
  EXPECT_EQ(samples.Take().size(), 2u);
}

}  // namespace
}  // namespace ratequant
