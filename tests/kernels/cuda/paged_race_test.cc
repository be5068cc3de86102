// The paged cache's kernels under ThreadSanitizer: any race ends the program.

#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/kernels/cuda/paged_case.h"

namespace ratequant::kv::cuda {
namespace {

class PagedRaceFree : public ::testing::TestWithParam<PagedCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, PagedRaceFree,
                         ::testing::ValuesIn(PagedCases(Coverage::kSome)),
                         [](const ::testing::TestParamInfo<PagedCase>& info) {
                           return info.param.name;
                         });

TEST_P(PagedRaceFree, AppendGatherAndAttention) {
  const ::cuda_on_cpu::ScopedSchedule schedule({.seed = 0, .workers = 2});
  EXPECT_EQ(CheckPaged(GetParam()), "");
}

TEST(EditsRaceFree, OfAllPools) { EXPECT_EQ(CheckEdits(), ""); }

TEST(PagedFaultsRaceFree, InValuesAndSteps) {
  EXPECT_EQ(CheckPagedFaults(), "");
}

}  // namespace
}  // namespace ratequant::kv::cuda
