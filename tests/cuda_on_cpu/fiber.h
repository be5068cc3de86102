#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_FIBER_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_FIBER_H_

#include <cstddef>

namespace cuda_on_cpu {

// A stack of its own that code runs on until it suspends. A fiber belongs to
// the OS thread that made it: it is resumed and destroyed there alone.
class Fiber {
 public:
  // `body(argument)` starts at the first Resume and must never return; a fiber
  // is destroyed while it is suspended, and nothing on its stack is unwound.
  Fiber(void (*body)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the fiber until it calls Suspend. Not from within a fiber.
  void Resume();

  // Goes back to the Resume that runs this fiber. From within it alone.
  void Suspend();

 private:
  struct Impl;
  static void Enter(Impl* impl);

  Impl* const impl_;
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_FIBER_H_
