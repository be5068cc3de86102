#include "services/allocation/noise.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/resource_names.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::DefaultQuantizer;
using v1::Policy;

// Every entry's standard error is this part of it.
v1::Calibration WithErrors(double part) {
  ratequant::testing::CalibrationSpec spec;
  v1::Calibration calibration = ratequant::testing::MakeCalibration(spec);
  calibration.set_name(CalibrationName("m", std::string(64, 'a')));
  for (v1::DistortionTable& table : *calibration.mutable_tables()) {
    for (double c2 : table.c2()) table.add_c2_standard_error(part * c2);
  }
  return calibration;
}

v1::BitMap Plan(const v1::Calibration& calibration,
                const Policy& policy = Policy(), double bits = 3) {
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_effective_bits(bits);
  *request.mutable_policy() = policy;
  const auto query = MakeQuery(request, calibration);
  EXPECT_TRUE(query.ok()) << query.status();
  const auto map = PlanBitMap(calibration, *query);
  EXPECT_TRUE(map.ok()) << map.status();
  return *map;
}

int Open(const v1::BitMap& map) {
  return static_cast<int>(
      std::count(map.within_noise().begin(), map.within_noise().end(), true));
}

TEST(Noise, GrowsWithTheStandardErrors) {
  const int groups = 4 * 2 * 2;
  const v1::BitMap exact = Plan(WithErrors(0));
  ASSERT_EQ(exact.within_noise_size(), groups);
  const int none = Open(exact), some = Open(Plan(WithErrors(0.3)));
  // The optimum fills the budget, for which it leaves some groups beside what
  // is best at one price.
  EXPECT_LE(none, groups / 4);
  EXPECT_GT(some, none);
  EXPECT_GT(Open(Plan(WithErrors(1))), some);
}

TEST(Noise, DoesNotChangeTheMap) {
  const v1::BitMap exact = Plan(WithErrors(0)), noisy = Plan(WithErrors(1));
  EXPECT_TRUE(std::equal(exact.width().begin(), exact.width().end(),
                         noisy.width().begin(), noisy.width().end()));
}

TEST(Noise, OfOneGroupIsItsOwn) {
  v1::Calibration calibration = WithErrors(0);
  const v1::BitMap before = Plan(calibration);
  // One that can get cheaper.
  const int group = static_cast<int>(
      std::max_element(before.width().begin(), before.width().end()) -
      before.width().begin());
  for (v1::DistortionTable& table : *calibration.mutable_tables()) {
    for (int w = 0; w < kWidths; ++w) {
      const int entry = group * kWidths + w;
      table.set_c2_standard_error(entry, table.c2(entry));
    }
  }
  const v1::BitMap after = Plan(calibration);
  for (int g = 0; g < before.within_noise_size(); ++g) {
    EXPECT_EQ(after.within_noise(g), g == group || before.within_noise(g)) << g;
  }
}

TEST(Noise, LeavesAPinnedGroupAlone) {
  Policy policy;
  v1::GroupRule& rule = *policy.add_rules();
  rule.set_layer(0);
  rule.set_min_width(16);
  rule.set_max_width(16);
  const v1::BitMap map = Plan(WithErrors(1), policy, 7);
  ASSERT_GT(map.within_noise_size(), 4);
  for (int g = 0; g < 4; ++g) EXPECT_FALSE(map.within_noise(g)) << g;
}

TEST(Noise, IsNotKnownWithoutStandardErrorsOrForOtherMaps) {
  v1::Calibration without = WithErrors(0);
  without.mutable_tables(1)->clear_c2_standard_error();
  EXPECT_TRUE(Plan(without).within_noise().empty());
  Policy measured, uniform, few;
  measured.set_objective(Policy::MEASURED);
  uniform.set_strategy(Policy::UNIFORM);
  few.set_max_formats_per_layer(2);
  for (const Policy& policy : {measured, uniform, few}) {
    EXPECT_TRUE(Plan(WithErrors(0.5), policy).within_noise().empty())
        << policy.DebugString();
  }
}

}  // namespace
}  // namespace ratequant::allocation
