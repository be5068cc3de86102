// Append, gather and decode attention of the paged cache, and page edits:
// bytes and floats are those of the scalar oracle, attention that of fp64,
// whatever order threads run in.

#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/kernels/cuda/paged_case.h"

namespace ratequant::kv::cuda {
namespace {

class EveryPagedCase : public ::testing::TestWithParam<PagedCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, EveryPagedCase,
                         ::testing::ValuesIn(PagedCases(Coverage::kAll)),
                         [](const ::testing::TestParamInfo<PagedCase>& info) {
                           return info.param.name;
                         });

TEST_P(EveryPagedCase, StoresReadsAndAttends) {
  EXPECT_EQ(CheckPaged(GetParam()), "");
}

class PagedSchedule : public ::testing::TestWithParam<uint32_t> {
 protected:
  ::cuda_on_cpu::ScopedSchedule schedule_{
      {.seed = GetParam(), .workers = 1 + GetParam() % 2}};
};
INSTANTIATE_TEST_SUITE_P(Seeds, PagedSchedule, ::testing::Values(1u, 2u));

TEST_P(PagedSchedule, ChangesNothing) {
  for (const PagedCase& paged_case : PagedCases(Coverage::kSome)) {
    EXPECT_EQ(CheckPaged(paged_case), "") << paged_case.name;
  }
}

TEST(PagedFaults, AreFoundAndTheRestIsStored) {
  EXPECT_EQ(CheckPagedFaults(), "");
}

TEST(Edits, ZeroAndCopyItemsOfAllPools) { EXPECT_EQ(CheckEdits(), ""); }

}  // namespace
}  // namespace ratequant::kv::cuda
