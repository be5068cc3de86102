#include "tests/cuda_on_cpu/block.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>

#include "tests/cuda_on_cpu/atomics.h"
#include "tests/cuda_on_cpu/fail.h"
#include "tests/cuda_on_cpu/race_check.h"

namespace cuda_on_cpu {

constinit thread_local const Position* current = nullptr;

namespace {

constinit thread_local BlockRunner* running = nullptr;

uint3 IndexInGrid(uint64_t index, const dim3& size) {
  return {static_cast<unsigned>(index % size.x),
          static_cast<unsigned>(index / size.x % size.y),
          static_cast<unsigned>(index / size.x / size.y)};
}

int Combine(BarrierOp op, int accumulated, int value) {
  switch (op) {
    case BarrierOp::kSync:
      return 0;
    case BarrierOp::kCount:
      return accumulated + (value != 0);
    case BarrierOp::kAnd:
      return accumulated && value != 0;
    case BarrierOp::kOr:
      return accumulated || value != 0;
  }
  return 0;
}

}  // namespace

BlockRunner& BlockRunner::Running() {
  if (running == nullptr) Fail("a CUDA builtin was called outside a kernel");
  return *running;
}

void BlockRunner::ThreadBody(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  BlockRunner& runner = *thread.runner;
  for (;;) {  // once a block
    Acquire(&runner.start_order_);
    (*runner.kernel_)();
    Release(&runner.end_order_);
    runner.EndThread(thread);
  }
}

void BlockRunner::EndThread(Thread& thread) {
  --live_;
  warps_[thread.position.warp].EndLane(thread.position.lane);
  Suspend(State::kEnded);
}

void BlockRunner::Suspend(State state) {
  Thread* const thread = thread_;
  thread->state = state;
  thread->fiber.Suspend();
}

void BlockRunner::Prepare(const LaunchShape& shape, uint64_t block) {
  thread_count_ = shape.block.x * shape.block.y * shape.block.z;
  live_ = thread_count_;
  barrier_.waiting = 0;
  void* const shared = shared_.Prepare(shape.shared_bytes);
  while (threads_.size() < thread_count_) {
    threads_.push_back(std::make_unique<Thread>(this));
  }
  const uint3 block_index = IndexInGrid(block, shape.grid);
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_[i]->state = State::kReady;
    threads_[i]->position = {IndexInGrid(i, shape.block),
                             block_index,
                             shape.block,
                             shape.grid,
                             i / kWarpSize,
                             i % kWarpSize,
                             shared};
  }
  const unsigned warps = (thread_count_ + kWarpSize - 1) / kWarpSize;
  if (warps_.size() < warps) warps_.resize(warps);
  for (unsigned w = 0; w < warps; ++w) {
    warps_[w].Reset(thread_count_ - w * kWarpSize);
  }
}

void BlockRunner::Run(const LaunchShape& shape,
                      const std::function<void()>& kernel, uint64_t block,
                      uint32_t seed) {
  kernel_ = &kernel;
  running = this;
  Prepare(shape, block);
  Release(&start_order_);
  std::vector<unsigned> order(thread_count_);
  std::iota(order.begin(), order.end(), 0u);
  std::minstd_rand random(static_cast<uint32_t>(seed + 2654435761u * block));
  while (live_ > 0) {
    if (seed != 0) std::shuffle(order.begin(), order.end(), random);
    const bool ran = RunReadyThreads(order);
    const bool opened = OpenBarrier();
    if (!ran && !opened && live_ > 0) FailDeadlocked();
  }
  Acquire(&end_order_);
  shared_.CheckOverrun();
  running = nullptr;
}

bool BlockRunner::RunReadyThreads(const std::vector<unsigned>& order) {
  bool ran = false;
  for (const unsigned index : order) {
    Thread& thread = *threads_[index];
    const bool met = thread.state == State::kInWarp &&
                     thread.meeting->generation != thread.generation;
    if (thread.state != State::kReady && !met) continue;
    ran = true;
    thread_ = &thread;
    current = &thread.position;
    thread.fiber.Resume();
    current = nullptr;
    thread_ = nullptr;
  }
  return ran;
}

bool BlockRunner::OpenBarrier() {
  if (barrier_.waiting == 0 || barrier_.waiting != live_) return false;
  barrier_.results[barrier_.generation % 2] = barrier_.accumulated;
  ++barrier_.generation;
  barrier_.waiting = 0;
  for (unsigned i = 0; i < thread_count_; ++i) {
    if (threads_[i]->state == State::kAtBarrier) {
      threads_[i]->state = State::kReady;
    }
  }
  return true;
}

int BlockRunner::WaitForBlock(BarrierOp op, int value) {
  if (barrier_.waiting == 0) {
    barrier_.op = op;
    barrier_.accumulated = op == BarrierOp::kAnd ? 1 : 0;
  }
  if (barrier_.op != op) {
    Fail("divergent barrier: threads of a block are in barriers of two kinds");
  }
  const unsigned parity = barrier_.generation % 2;
  barrier_.accumulated = Combine(op, barrier_.accumulated, value);
  ++barrier_.waiting;
  Release(&barrier_.order[parity]);
  Suspend(State::kAtBarrier);
  Acquire(&barrier_.order[parity]);
  return barrier_.results[parity];
}

const WarpSlot* BlockRunner::MeetInWarp(unsigned mask, WarpOp op,
                                        WarpSlot mine) {
  Thread& thread = *thread_;
  const unsigned lane = thread.position.lane;
  Warp& warp = warps_[thread.position.warp];
  if (((mask >> lane) & 1) == 0) {
    Fail(
        "a lane called a warp collective with the mask %08x, which leaves it "
        "out",
        mask);
  }
  if ((mask & warp.ended()) != 0) {
    Fail(
        "the mask %08x of a warp collective names lanes that have ended or "
        "don't exist: %08x",
        mask, mask & warp.ended());
  }
  WarpMeeting& meeting = warp.MeetingOf(mask);
  if (meeting.arrived == 0) meeting.op = op;
  if (meeting.op != op) {
    Fail(
        "divergent warp: lanes of the mask %08x are in collectives of two "
        "kinds",
        mask);
  }
  const unsigned parity = meeting.generation % 2;
  meeting.slots[parity][lane] = mine;
  meeting.arrived |= 1u << lane;
  // Only __syncwarp orders memory; the others exchange values and no more.
  if (op == WarpOp::kSync) Release(&meeting.order[parity]);
  if (meeting.arrived == mask) {
    meeting.arrived = 0;
    ++meeting.generation;
  } else {
    thread.meeting = &meeting;
    thread.generation = meeting.generation;
    Suspend(State::kInWarp);
  }
  if (op == WarpOp::kSync) Acquire(&meeting.order[parity]);
  return meeting.slots[parity];
}

void BlockRunner::FailDeadlocked() {
  unsigned at_barrier = 0, in_warp = 0;
  const Thread* stuck = nullptr;
  for (unsigned i = 0; i < thread_count_; ++i) {
    const Thread& thread = *threads_[i];
    if (thread.state == State::kEnded) continue;
    if (stuck == nullptr) stuck = &thread;
    ++(thread.state == State::kInWarp ? in_warp : at_barrier);
  }
  current = &stuck->position;
  Fail(
      "divergent barrier: %u threads wait in a block barrier, %u in warp "
      "collectives, %u have ended; the first that waits",
      at_barrier, in_warp, thread_count_ - live_);
}

int WaitForBlock(BarrierOp op, int value) {
  return BlockRunner::Running().WaitForBlock(op, value);
}

const WarpSlot* MeetInWarp(unsigned mask, WarpOp op, WarpSlot mine) {
  return BlockRunner::Running().MeetInWarp(mask, op, mine);
}

WarpSlot SlotOf(const WarpSlot* slots, unsigned lane) { return slots[lane]; }

void Fence() {
#if CUDA_ON_CPU_RACE_CHECK
  // ThreadSanitizer knows no fences. One point for all of them orders more than
  // a fence does, never less.
  static char order = 0;
  Acquire(&order);
  Release(&order);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace cuda_on_cpu
