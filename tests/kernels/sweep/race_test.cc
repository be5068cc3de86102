// The sweep's kernels under ThreadSanitizer: any race ends the program.

#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/kernels/sweep/sweep_check.h"

namespace ratequant::kv::cuda {
namespace {

class SweepRaceFree : public ::testing::TestWithParam<SweepCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, SweepRaceFree,
                         ::testing::ValuesIn(SweepCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(SweepRaceFree, Kernels) {
  const ::cuda_on_cpu::ScopedSchedule schedule({.seed = 0, .workers = 2});
  EXPECT_EQ(CheckSweep(GetParam()), "");
}

TEST(SweepFaultsRaceFree, TheFirstOfMany) { EXPECT_EQ(CheckSweepFaults(), ""); }

}  // namespace
}  // namespace ratequant::kv::cuda
