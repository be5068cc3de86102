#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_RACE_CHECK_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_RACE_CHECK_H_

// The race-checking variant: CUDA_ON_CPU_RACE_CHECK is 1, kernels are compiled
// with -fsanitize=thread, the shim's own .cc files without it. Every CUDA
// thread is a thread to ThreadSanitizer, and the only order between two of them
// is what a barrier, __syncwarp or a fence makes. Switching fibers makes none,
// so a race is found on the schedule that happened to give the right result.

#ifndef CUDA_ON_CPU_RACE_CHECK
#define CUDA_ON_CPU_RACE_CHECK 0
#endif

#if CUDA_ON_CPU_RACE_CHECK
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_on_cpu {

// Order: what a thread did before Release(p) happened before what another does
// after a later Acquire(p). Nothing outside the race-checking variant.
inline void Release([[maybe_unused]] void* point) {
#if CUDA_ON_CPU_RACE_CHECK
  __tsan_release(point);
#endif
}
inline void Acquire([[maybe_unused]] void* point) {
#if CUDA_ON_CPU_RACE_CHECK
  __tsan_acquire(point);
#endif
}

// A fiber as ThreadSanitizer sees it.
class RaceFiber {
 public:
#if CUDA_ON_CPU_RACE_CHECK
  ~RaceFiber() { __tsan_destroy_fiber(fiber_); }
  void SwitchTo() {
    resumer_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber_, __tsan_switch_to_fiber_no_sync);
  }
  void SwitchBack() {
    __tsan_switch_to_fiber(resumer_, __tsan_switch_to_fiber_no_sync);
  }

 private:
  void* const fiber_ = __tsan_create_fiber(0);
  void* resumer_ = nullptr;
#else
  void SwitchTo() {}
  void SwitchBack() {}
#endif
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_RACE_CHECK_H_
