// The race-checking variant on kernels whose results are right on the schedule
// that runs: what it finds is the missing order, not a wrong result. A race
// ends the program (race_options.cc), so a test that passes had none.

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/test_launch.h"

namespace cuda_on_cpu {
namespace {

using ::testing::Each;

class RaceTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  std::vector<int> out_ = std::vector<int>(1024, 0);
};
using RaceDeathTest = RaceTest;

// Thread i reads what thread i - 1 wrote.
template <int kBarrier>
__global__ void Shift(int* out) {
  int* const shared = DynamicShared<int>();
  shared[threadIdx.x] = 1;
  int unused = 0;
  if (kBarrier == 1) __syncthreads();
  if (kBarrier == 2) __syncwarp();
  if (kBarrier == 3) unused = __shfl_xor_sync(0xFFFFFFFFu, 0, 1);
  out[blockIdx.x * blockDim.x + threadIdx.x] =
      (threadIdx.x == 0 ? 1 : shared[threadIdx.x - 1]) + unused;
}
constexpr size_t kShared = 256 * sizeof(int);

TEST_F(RaceTest, ABlockBarrierOrders) {
  ASSERT_EQ(Launch(3, 64, kShared, Shift<1>, out_.data()), cudaSuccess);
}

TEST_F(RaceDeathTest, WithoutABarrierThereIsARace) {
  EXPECT_EXIT(Launch(1, 64, kShared, Shift<0>, out_.data()),
              ::testing::ExitedWithCode(66), "data race");
}

TEST_F(RaceTest, AWarpBarrierOrdersItsWarp) {
  ASSERT_EQ(Launch(1, 32, kShared, Shift<2>, out_.data()), cudaSuccess);
}

TEST_F(RaceDeathTest, AWarpBarrierOrdersNoOtherWarp) {
  EXPECT_EXIT(Launch(1, 64, kShared, Shift<2>, out_.data()),
              ::testing::ExitedWithCode(66), "data race");
}

TEST_F(RaceDeathTest, AShuffleOrdersNothing) {
  EXPECT_EXIT(Launch(1, 32, kShared, Shift<3>, out_.data()),
              ::testing::ExitedWithCode(66), "data race");
}

// The same word is written again before all have read it.
template <bool kSecondBarrier>
__global__ void Reuse(int* out) {
  int* const shared = DynamicShared<int>();
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x == 0) shared[0] = round;
    __syncthreads();
    out[threadIdx.x] += shared[0];
    if (kSecondBarrier) __syncthreads();
  }
}

TEST_F(RaceTest, TwoBarriersPerRoundOrderReuse) {
  ASSERT_EQ(Launch(1, 64, kShared, Reuse<true>, out_.data()), cudaSuccess);
  EXPECT_THAT(std::vector<int>(out_.begin(), out_.begin() + 64), Each(3));
}

TEST_F(RaceDeathTest, OneBarrierPerRoundDoesNot) {
  EXPECT_EXIT(Launch(1, 64, kShared, Reuse<false>, out_.data()),
              ::testing::ExitedWithCode(66), "data race");
}

__global__ void AddPlain(int* out) { out[0] += 1; }
__global__ void AddAtomically(int* out) { atomicAdd(out, 1); }

TEST_F(RaceDeathTest, ThreadsOfABlockMayNotAddToOneWord) {
  EXPECT_EXIT(Launch(1, 32, 0, AddPlain, out_.data()),
              ::testing::ExitedWithCode(66), "data race");
}

// Both blocks run at once: each waits for the other. Blocks that one worker
// runs after each other are in order, and races between them go unseen. Many
// stores: ThreadSanitizer can miss two that fall into the same instant.
__global__ void StorePlain(int* out, int* running) {
  atomicAdd(running, 1);
  while (atomicAdd(running, 0) < 2) {
  }
  volatile int* const word = out;
  for (int i = 0; i < 1000; ++i) *word = i;
}

TEST_F(RaceDeathTest, BlocksMayNotStoreToOneWord) {
  const ScopedSchedule schedule({.seed = 0, .workers = 2});
  int running = 0;
  EXPECT_EXIT(Launch(2, 1, 0, StorePlain, out_.data(), &running),
              ::testing::ExitedWithCode(66), "data race");
}

TEST_F(RaceTest, AtomicsDontRace) {
  ASSERT_EQ(Launch(8, 32, 0, AddAtomically, out_.data()), cudaSuccess);
  EXPECT_EQ(out_[0], 256);
}

// The last block sums what all wrote.
__global__ void LastBlockSums(int* parts, int* counter, int* sum) {
  parts[blockIdx.x] = static_cast<int>(blockIdx.x);
  __threadfence();
  if (atomicAdd(counter, 1) != static_cast<int>(gridDim.x) - 1) return;
  __threadfence();
  for (unsigned i = 0; i < gridDim.x; ++i) *sum += parts[i];
}

TEST_F(RaceTest, FencesOrderBlocks) {
  const ScopedSchedule schedule({.seed = 0, .workers = 2});
  int counter = 0, sum = 0;
  ASSERT_EQ(Launch(16, 1, 0, LastBlockSums, out_.data(), &counter, &sum),
            cudaSuccess);
  EXPECT_EQ(sum, 120);
}

TEST_F(RaceTest, LaunchesAreOrderedAndBlocksReuseMemory) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Launch(5, 128, kShared, Shift<1>, out_.data()), cudaSuccess);
  }
}

}  // namespace
}  // namespace cuda_on_cpu
