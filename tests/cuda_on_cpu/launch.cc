#include "tests/cuda_on_cpu/launch.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/fail.h"
#include "tests/cuda_on_cpu/race_check.h"

namespace cuda_on_cpu {
namespace {

Schedule& TheSchedule() {
  static Schedule schedule;
  return schedule;
}

unsigned WorkersOf(const Schedule& schedule) {
  if (schedule.workers != 0) return schedule.workers;
  return std::max(1u, std::thread::hardware_concurrency());
}

// One launch, shared by the workers that run its blocks.
struct Grid {
  const LaunchShape& shape;
  const std::function<void()>& kernel;
  uint32_t seed;
  uint64_t blocks;
  std::atomic<uint64_t> next{0};

  // Runs blocks until none is left.
  void Work() {
    // Kept from launch to launch, with its fibers.
    static thread_local BlockRunner runner;
    for (uint64_t block; (block = next.fetch_add(1)) < blocks;) {
      runner.Run(shape, kernel, block, seed);
    }
  }
};

// OS threads that wait for grids. The launching thread works too, so that a
// small grid costs no hand-over. Not destroyed: a launch may be the last thing
// a program does.
class Helpers {
 public:
  // Works on `grid` with `count` helpers besides the caller.
  void Work(Grid& grid, unsigned count) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (threads_.size() < count) {
        threads_.emplace_back([this] { Loop(); });
      }
      grid_ = &grid;
      wanted_ = count;
      busy_ = count;
    }
    work_.notify_all();
    grid.Work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void Loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return wanted_ > 0; });
      --wanted_;
      Grid& grid = *grid_;
      lock.unlock();
      grid.Work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  Grid* grid_ = nullptr;
  unsigned wanted_ = 0;  // helpers that should still take the grid
  unsigned busy_ = 0;    // helpers that haven't finished it
};

}  // namespace

ScopedSchedule::ScopedSchedule(const Schedule& schedule)
    : previous_(TheSchedule()) {
  TheSchedule() = schedule;
}

ScopedSchedule::~ScopedSchedule() { TheSchedule() = previous_; }

bool IsLaunchable(const LaunchShape& shape) {
  const auto product = [](const dim3& d) {
    return static_cast<uint64_t>(d.x) * d.y * d.z;
  };
  return product(shape.block) >= 1 &&
         product(shape.block) <= kMaxBlockThreads && shape.block.z <= 64 &&
         shape.grid.x >= 1 && shape.grid.x <= 0x7FFFFFFFu &&
         shape.grid.y >= 1 && shape.grid.y <= 65535 && shape.grid.z >= 1 &&
         shape.grid.z <= 65535 && shape.shared_bytes <= kMaxDynamicShared;
}

void RunGrid(const LaunchShape& shape, const std::function<void()>& kernel) {
  if (current != nullptr) Fail("a kernel can't launch another");
  static std::mutex launches;
  static Helpers* const helpers = new Helpers;
  const std::lock_guard<std::mutex> lock(launches);
  const Schedule schedule = TheSchedule();
  Grid grid{shape, kernel, schedule.seed,
            static_cast<uint64_t>(shape.grid.x) * shape.grid.y * shape.grid.z};
  const uint64_t workers = std::min<uint64_t>(grid.blocks, WorkersOf(schedule));
  if (workers > 1) {
    helpers->Work(grid, static_cast<unsigned>(workers) - 1);
  } else {
    grid.Work();
  }
}

}  // namespace cuda_on_cpu
