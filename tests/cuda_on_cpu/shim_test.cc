#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_on_cpu/test_launch.h"

namespace cuda_on_cpu {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// Schedules that every kernel's result must not depend on.
class UnderSchedule : public ::testing::TestWithParam<uint32_t> {
 protected:
  ScopedSchedule schedule_{{.seed = GetParam(), .workers = 2}};
};

INSTANTIATE_TEST_SUITE_P(Seeds, UnderSchedule,
                         ::testing::Values(0u, 1u, 2u, 3u));

__global__ void CountIndices(int* counts) {
  const unsigned block =
      (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread =
      (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&counts[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

TEST_P(UnderSchedule, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> counts(3 * 4 * 2 * 5 * 7 * 3, 0);
  ASSERT_EQ(Launch({3, 4, 2}, {5, 7, 3}, 0, CountIndices, counts.data()),
            cudaSuccess);
  EXPECT_THAT(counts, Each(1));
}

// Each thread reads what the thread at the other end of the block wrote.
__global__ void Reverse(int* out) {
  int* const shared = DynamicShared<int>();
  __shared__ int first[64];
  first[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[threadIdx.x] = first[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] =
      shared[threadIdx.x ^ 1] + 1000 * static_cast<int>(blockIdx.x);
}

TEST_P(UnderSchedule, BarriersOrderSharedMemory) {
  std::vector<int> out(5 * 64);
  ASSERT_EQ(Launch(5, 64, 64 * sizeof(int), Reverse, out.data()), cudaSuccess);
  for (int i = 0; i < 5 * 64; ++i) {
    EXPECT_EQ(out[i], (63 - ((i % 64) ^ 1)) + 1000 * (i / 64));
  }
}

__global__ void ReducingBarriers(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(i % 3 == 0);
  const int none = __syncthreads_or(0);
  const int some = __syncthreads_or(i == 17);
  const int all = __syncthreads_and(1);
  const int most = __syncthreads_and(i != 17);
  out[i] = count * 10000 + none * 1000 + some * 100 + all * 10 + most;
}

TEST_P(UnderSchedule, ReducingBarriersGiveTheirResultToEveryThread) {
  std::vector<int> out(40);
  ASSERT_EQ(Launch(1, 40, 0, ReducingBarriers, out.data()), cudaSuccess);
  EXPECT_THAT(out, Each(14 * 10000 + 110));
}

struct Shuffled {
  int broadcast, segment, butterfly, down, up;
  double wide;
};

__global__ void ShuffleAll(Shuffled* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const unsigned all = 0xFFFFFFFFu;
  out[threadIdx.x] = {
      __shfl_sync(all, lane, 7),        __shfl_sync(all, lane, 3, 8),
      __shfl_xor_sync(all, lane, 5),    __shfl_down_sync(all, lane, 4, 16),
      __shfl_up_sync(all, lane, 4, 16), __shfl_xor_sync(all, lane * 0.5, 31)};
}

TEST_P(UnderSchedule, ShufflesTakeTheValueOfTheRightLane) {
  std::vector<Shuffled> out(64);
  ASSERT_EQ(Launch(1, 64, 0, ShuffleAll, out.data()), cudaSuccess);
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32;
    EXPECT_EQ(out[i].broadcast, 7);
    EXPECT_EQ(out[i].segment, lane / 8 * 8 + 3);
    EXPECT_EQ(out[i].butterfly, lane ^ 5);
    EXPECT_EQ(out[i].down, lane % 16 < 12 ? lane + 4 : lane);
    EXPECT_EQ(out[i].up, lane % 16 >= 4 ? lane - 4 : lane);
    EXPECT_EQ(out[i].wide, (31 - lane) * 0.5);
  }
}

// The halves of a warp go different ways, each with its own mask.
__global__ void DivergentHalves(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = lane;
  if (lane < 16) {
    for (int step = 8; step > 0; step /= 2) {
      value += __shfl_xor_sync(0x0000FFFFu, value, step, 16);
    }
  } else {
    value = __popc(__ballot_sync(0xFFFF0000u, lane % 2));
  }
  out[lane] = value;
}

TEST_P(UnderSchedule, HalvesOfAWarpMeetApart) {
  std::vector<int> out(32);
  ASSERT_EQ(Launch(1, 32, 0, DivergentHalves, out.data()), cudaSuccess);
  EXPECT_THAT(std::vector<int>(out.begin(), out.begin() + 16), Each(120));
  EXPECT_THAT(std::vector<int>(out.begin() + 16, out.end()), Each(8));
}

__global__ void VotesAndReductions(unsigned* out) {
  const unsigned mask = 0x000FFFFFu;  // the block has 20 threads
  const unsigned i = threadIdx.x;
  out[6 * i] = __ballot_sync(mask, i % 2);
  out[6 * i + 1] = __any_sync(mask, i == 19);
  out[6 * i + 2] = __all_sync(mask, i != 19);
  out[6 * i + 3] = __reduce_add_sync(mask, i);
  out[6 * i + 4] = __reduce_or_sync(mask, 1u << i);
  out[6 * i + 5] = __reduce_max_sync(mask, 100 - i);
}

TEST_P(UnderSchedule, VotesAndReductionsCoverTheMask) {
  std::vector<unsigned> out(20 * 6);
  ASSERT_EQ(Launch(1, 20, 0, VotesAndReductions, out.data()), cudaSuccess);
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(
        std::vector<unsigned>(out.begin() + 6 * i, out.begin() + 6 * i + 6),
        ElementsAre(0x000AAAAAu, 1u, 0u, 190u, 0x000FFFFFu, 100u));
  }
}

__global__ void EarlyExit(int* out) {
  if (threadIdx.x >= 70) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

TEST_P(UnderSchedule, ThreadsThatEndedDontHoldUpABarrier) {
  std::vector<int> out(128, 0);
  ASSERT_EQ(Launch(1, 128, 0, EarlyExit, out.data()), cudaSuccess);
  EXPECT_EQ(std::count(out.begin(), out.end(), 1), 70);
}

__global__ void UpdateAtomically(unsigned* out, float* sum) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&out[0], i);
  atomicMin(&out[1], 1000 - i);
  atomicMax(&out[2], i);
  atomicOr(&out[3], 1u << (i % 32));
  atomicAnd(&out[4], ~(1u << (i % 8)));
  if (atomicCAS(&out[5], 0u, i + 1) == 0) atomicExch(&out[6], i + 1);
  atomicAdd(sum, 0.5f);
}

TEST_P(UnderSchedule, AtomicsLoseNothing) {
  std::vector<unsigned> out = {0, ~0u, 0, 0, ~0u, 0, 0};
  float sum = 0;
  ASSERT_EQ(Launch(6, 64, 0, UpdateAtomically, out.data(), &sum), cudaSuccess);
  EXPECT_EQ(out[0], 384u * 383 / 2);
  EXPECT_EQ(out[1], 1000u - 383);
  EXPECT_EQ(out[2], 383u);
  EXPECT_EQ(out[3], ~0u);
  EXPECT_EQ(out[4], 0xFFFFFF00u);
  EXPECT_NE(out[5], 0u);
  EXPECT_EQ(out[5], out[6]);
  EXPECT_EQ(sum, 192.0f);
}

__global__ void ReadThenWriteShared(unsigned char* seen, int bytes) {
  unsigned char* const shared = DynamicShared<unsigned char>();
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += blockDim.x) {
    seen[blockIdx.x * bytes + i] = shared[i];
    shared[i] = 1;
  }
}

TEST(SharedMemory, HoldsGarbageAtTheStartOfEveryBlock) {
  std::vector<unsigned char> seen(8 * 100);
  ASSERT_EQ(Launch(8, 32, 100, ReadThenWriteShared, seen.data(), 100),
            cudaSuccess);
  EXPECT_THAT(seen, Each(0xA5));
}

__global__ void RecordOrder(std::atomic<int>* next, int* order) {
  order[next->fetch_add(1)] = static_cast<int>(threadIdx.x);
}

std::vector<int> OrderOfThreads(uint32_t seed) {
  const ScopedSchedule schedule({.seed = seed, .workers = 1});
  std::vector<int> order(64);
  std::atomic<int> next = 0;
  EXPECT_EQ(Launch(1, 64, 0, RecordOrder, &next, order.data()), cudaSuccess);
  return order;
}

TEST(Schedules, SeedsGiveOrdersThatRepeat) {
  EXPECT_TRUE(std::ranges::is_sorted(OrderOfThreads(0)));
  std::set<std::vector<int>> orders;
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    EXPECT_EQ(OrderOfThreads(seed), OrderOfThreads(seed));
    orders.insert(OrderOfThreads(seed));
  }
  EXPECT_EQ(orders.size(), 5u);
}

// A barrier is missing; threads in order of their index happen to get it right.
__global__ void MissingBarrier(int* out) {
  int* const shared = DynamicShared<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = threadIdx.x == 0 ? 0 : shared[threadIdx.x - 1];
}

bool IsShifted(uint32_t seed) {
  const ScopedSchedule schedule({.seed = seed, .workers = 1});
  std::vector<int> out(64);
  EXPECT_EQ(Launch(1, 64, 64 * sizeof(int), MissingBarrier, out.data()),
            cudaSuccess);
  for (int i = 1; i < 64; ++i) {
    if (out[i] != i - 1) return false;
  }
  return true;
}

TEST(Schedules, ShufflingFindsAMissingBarrier) {
  EXPECT_TRUE(IsShifted(0));
  EXPECT_FALSE(IsShifted(1));
  EXPECT_FALSE(IsShifted(2));
}

TEST(Launches, FromSeveralHostThreadsWaitForEachOther) {
  std::vector<std::thread> threads;
  std::vector<std::vector<int>> counts(4, std::vector<int>(8 * 33, 0));
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&counts, i] {
      for (int k = 0; k < 10; ++k) {
        EXPECT_EQ(Launch(8, 33, 0, CountIndices, counts[i].data()),
                  cudaSuccess);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int>& c : counts) EXPECT_THAT(c, Each(10));
}

TEST(Launches, RefusesWhatAGpuRefuses) {
  int* const none = nullptr;
  for (const auto& [grid, block, bytes] :
       {std::tuple<dim3, dim3, size_t>{0, 32, 0},
        {1, 0, 0},
        {1, 1025, 0},
        {1, {32, 32, 2}, 0},
        {{1, 65536}, 32, 0},
        {1, 32, 228 * 1024}}) {
    EXPECT_EQ(Launch(grid, block, bytes, CountIndices, none),
              cudaErrorInvalidConfiguration);
  }
}

TEST(Devices, AMachineWithoutOneSaysSo) {
  int count = 0;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 1);
  const ScopedDeviceCount none(0);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_EQ(count, -1);
}

}  // namespace
}  // namespace cuda_on_cpu
