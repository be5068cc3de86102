// The encoding and decoding kernels under ThreadSanitizer: any race ends the
// program.

#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/kernels/cuda/scalar_oracle.h"
#include "tests/kernels/cuda/section_batch.h"

namespace ratequant::kv::cuda {
namespace {

class RaceFree : public ::testing::TestWithParam<BatchCase> {};
INSTANTIATE_TEST_SUITE_P(Batches, RaceFree,
                         ::testing::ValuesIn(BatchCases(Coverage::kSome)),
                         [](const ::testing::TestParamInfo<BatchCase>& info) {
                           return info.param.name;
                         });

TEST_P(RaceFree, SectionKernels) {
  const ::cuda_on_cpu::ScopedSchedule schedule({.seed = 0, .workers = 2});
  EXPECT_EQ(CheckBatch(GetParam(), ScalarOracle()), "");
}

TEST(FaultsRaceFree, InTasksAndValues) { EXPECT_EQ(CheckFaults(), ""); }

}  // namespace
}  // namespace ratequant::kv::cuda
