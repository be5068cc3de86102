#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_LAUNCH_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_LAUNCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "tests/cuda_on_cpu/vector_types.h"

namespace cuda_on_cpu {

// A block may not have more dynamic shared memory than the largest GPU gives.
inline constexpr size_t kMaxDynamicShared = 227 * 1024;

// How blocks and threads take turns. The same schedule runs the same kernel in
// the same order of its threads.
struct Schedule {
  // 0: threads in order of their index. Any other value shuffles them anew
  // whenever each has run once: a missing barrier gives wrong results under
  // some of them.
  uint32_t seed = 0;
  unsigned workers = 0;  // OS threads that run blocks; 0: one per core
};

// Sets the schedule of all launches while it lives. Not while a kernel runs.
class ScopedSchedule {
 public:
  explicit ScopedSchedule(const Schedule& schedule);
  ~ScopedSchedule();
  ScopedSchedule(const ScopedSchedule&) = delete;
  ScopedSchedule& operator=(const ScopedSchedule&) = delete;

 private:
  const Schedule previous_;
};

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
};

// Whether a GPU would accept the shape.
bool IsLaunchable(const LaunchShape& shape);

// Calls `kernel` once for each thread of the grid; returns when all have ended.
// Thread-safe: launches wait for each other. The shape must be launchable.
void RunGrid(const LaunchShape& shape, const std::function<void()>& kernel);

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_LAUNCH_H_
