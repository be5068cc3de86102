#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/cuda_on_cpu/block_builtins.h"
#include "tests/cuda_on_cpu/current.h"
#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/cuda_on_cpu/shared_memory.h"
#include "tests/cuda_on_cpu/warp.h"

namespace cuda_on_cpu {

// Runs blocks on the OS thread that made it, one after the other. Fibers and
// shared memory are kept from block to block and from launch to launch.
class BlockRunner {
 public:
  BlockRunner() = default;
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  // Runs block number `block` of a grid to its end. Fails when its threads wait
  // for each other for ever.
  void Run(const LaunchShape& shape, const std::function<void()>& kernel,
           uint64_t block, uint32_t seed);

  // The runner whose kernel calls on this OS thread.
  static BlockRunner& Running();

  // Both from within a kernel.
  int WaitForBlock(BarrierOp op, int value);
  const WarpSlot* MeetInWarp(unsigned mask, WarpOp op, WarpSlot mine);

 private:
  enum class State { kReady, kAtBarrier, kInWarp, kEnded };

  struct Thread {
    explicit Thread(BlockRunner* owner)
        : runner(owner), fiber(&BlockRunner::ThreadBody, this) {}

    BlockRunner* const runner;
    Position position;
    State state = State::kEnded;
    const WarpMeeting* meeting = nullptr;  // what kInWarp waits for
    uint32_t generation = 0;
    Fiber fiber;
  };

  // The barrier that the block is in, or the next one. Results are kept for two
  // barriers: a thread reads its result while others arrive at the next.
  struct Barrier {
    unsigned waiting = 0;
    BarrierOp op = BarrierOp::kSync;
    int accumulated = 0;
    uint32_t generation = 0;
    int results[2] = {0, 0};
    char order[2] = {0, 0};  // points of Acquire and Release
  };

  static void ThreadBody(void* thread);

  void Prepare(const LaunchShape& shape, uint64_t block);
  // Lets every thread that can go on run until it waits or ends, in the given
  // order. False when none could.
  bool RunReadyThreads(const std::vector<unsigned>& order);
  bool OpenBarrier();
  void EndThread(Thread& thread);
  void Suspend(State state);
  [[noreturn]] void FailDeadlocked();

  std::vector<std::unique_ptr<Thread>> threads_;  // at least thread_count_
  std::vector<Warp> warps_;
  SharedMemory shared_;
  Barrier barrier_;
  const std::function<void()>* kernel_ = nullptr;
  Thread* thread_ = nullptr;  // the one that runs
  unsigned thread_count_ = 0;
  unsigned live_ = 0;
  char start_order_ = 0;
  char end_order_ = 0;
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_H_
