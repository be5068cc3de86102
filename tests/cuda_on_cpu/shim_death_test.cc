#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/test_launch.h"

namespace cuda_on_cpu {
namespace {

// What is broken in these kernels hangs a GPU or makes it compute anything.
class BrokenKernelDeathTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  // The helper threads of a launch don't survive a fork.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  ScopedSchedule schedule_{{.seed = GetParam(), .workers = 1}};
  int out_[1024] = {};
};

INSTANTIATE_TEST_SUITE_P(Seeds, BrokenKernelDeathTest,
                         ::testing::Values(0u, 1u));

__global__ void HalfAtTheBarrier(int* out) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    out[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, 1, 0);
  }
}

TEST_P(BrokenKernelDeathTest, ABarrierThatOnlyHalfReach) {
  EXPECT_DEATH(
      Launch(1, 32, 0, HalfAtTheBarrier, out_),
      "divergent barrier: 16 threads wait in a block barrier, 16 in warp "
      "collectives, 0 have ended.*block \\(0, 0, 0\\)");
}

__global__ void TwoKindsOfBarrier() {
  if (threadIdx.x == 3) {
    __syncthreads();
  } else {
    __syncthreads_or(1);
  }
}

TEST_P(BrokenKernelDeathTest, BarriersOfTwoKinds) {
  EXPECT_DEATH(Launch(2, 64, 0, TwoKindsOfBarrier), "barriers of two kinds");
}

__global__ void ExitedLane(int* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);
}

TEST_P(BrokenKernelDeathTest, AMaskThatNamesLanesThatEnded) {
  EXPECT_DEATH(Launch(1, 32, 0, ExitedLane, out_),
               "names lanes that have ended|divergent barrier");
}

TEST_P(BrokenKernelDeathTest, AMaskThatNamesLanesThatDontExist) {
  EXPECT_DEATH(Launch(1, 20, 0, ExitedLane, out_),
               "ended or don't exist: fff00000");
}

__global__ void LeftOut(int* out) {
  out[threadIdx.x] = static_cast<int>(__ballot_sync(0x0000FFFFu, 1));
}

TEST_P(BrokenKernelDeathTest, AMaskThatLeavesTheCallerOut) {
  EXPECT_DEATH(Launch(1, 32, 0, LeftOut, out_), "mask 0000ffff, which leaves");
}

__global__ void SourceOutsideMask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000FFFFu, 1, 20);
}

TEST_P(BrokenKernelDeathTest, AShuffleFromOutsideTheMask) {
  EXPECT_DEATH(Launch(1, 32, 0, SourceOutsideMask, out_),
               "shuffle from lane 20");
}

__global__ void TwoKindsOfCollective(int* out) {
  out[threadIdx.x] = threadIdx.x == 5 ? __any_sync(0xFFFFFFFFu, 1)
                                      : __shfl_sync(0xFFFFFFFFu, 1, 0);
}

TEST_P(BrokenKernelDeathTest, LanesInCollectivesOfTwoKinds) {
  EXPECT_DEATH(Launch(1, 32, 0, TwoKindsOfCollective, out_),
               "collectives of two kinds");
}

__global__ void WriteShared(int index) {
  DynamicShared<unsigned char>()[index + static_cast<int>(threadIdx.x)] = 1;
}

// AddressSanitizer stops at the write, the check after the block otherwise.
TEST_P(BrokenKernelDeathTest, AnOverrunOfSharedMemory) {
  EXPECT_EQ(Launch(1, 32, 100, WriteShared, 68), cudaSuccess);
  EXPECT_DEATH(Launch(1, 32, 100, WriteShared, 69),
               "byte 100 of its 100 bytes|use-after-poison");
}

__global__ void LaunchAnother() { Launch(1, 32, 0, WriteShared, 0); }

TEST_P(BrokenKernelDeathTest, AKernelThatLaunchesAnother) {
  EXPECT_DEATH(Launch(1, 1, 0, LaunchAnother), "can't launch another");
}

TEST_P(BrokenKernelDeathTest, ABuiltinOutsideAKernel) {
  EXPECT_DEATH(__syncthreads(), "outside a kernel");
}

}  // namespace
}  // namespace cuda_on_cpu
