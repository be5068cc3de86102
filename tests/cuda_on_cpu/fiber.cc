#include "tests/cuda_on_cpu/fiber.h"

#include <sys/mman.h>

// The part of Boost.Context under its fibers: two functions in assembly.
// Boost's own fiber class unwinds a suspended stack with an exception when it
// is destroyed, which sanitizers can't follow.
#include <boost/context/detail/fcontext.hpp>

#include "tests/cuda_on_cpu/fail.h"
#include "tests/cuda_on_cpu/race_check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

namespace context = boost::context::detail;

#if defined(__SANITIZE_ADDRESS__) || CUDA_ON_CPU_RACE_CHECK
constexpr size_t kStackBytes = 256 * 1024;  // instrumented frames are larger
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kGuardBytes = 4096;

// Memory whose lowest page can't be touched: a stack that grows too far stops
// the program instead of writing into its neighbour.
char* AllocateStack() {
  void* memory =
      mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    Fail("no memory for a thread's stack");
  }
  return static_cast<char*>(memory) + kGuardBytes;
}

void FreeStack(char* stack) {
  munmap(stack - kGuardBytes, kGuardBytes + kStackBytes);
}

}  // namespace

struct Fiber::Impl {
  void (*body)(void*);
  void* argument;
  char* stack = AllocateStack();
  context::fcontext_t suspended = nullptr;  // where the fiber goes on
  context::fcontext_t resumer = nullptr;    // where its Resume goes on
  // What AddressSanitizer needs to follow the switches.
  void* fiber_fake_stack = nullptr;
  void* resumer_fake_stack = nullptr;
  const void* resumer_stack = nullptr;
  size_t resumer_stack_bytes = 0;
  RaceFiber race{};
};

Fiber::Fiber(void (*body)(void*), void* argument)
    : impl_(new Impl{.body = body, .argument = argument}) {
  impl_->suspended = context::make_fcontext(
      impl_->stack + kStackBytes, kStackBytes, [](context::transfer_t from) {
        Impl* const impl = static_cast<Impl*>(from.data);
        impl->resumer = from.fctx;
        Enter(impl);
      });
}

Fiber::~Fiber() {
  FreeStack(impl_->stack);
  delete impl_;
}

void Fiber::Enter(Impl* impl) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &impl->resumer_stack,
                                  &impl->resumer_stack_bytes);
#endif
  impl->body(impl->argument);
  Fail("a fiber's body returned");
}

void Fiber::Resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&impl_->resumer_fake_stack, impl_->stack,
                                 kStackBytes);
#endif
  impl_->race.SwitchTo();
  impl_->suspended = context::jump_fcontext(impl_->suspended, impl_).fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(impl_->resumer_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::Suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&impl_->fiber_fake_stack, impl_->resumer_stack,
                                 impl_->resumer_stack_bytes);
#endif
  impl_->race.SwitchBack();
  impl_->resumer = context::jump_fcontext(impl_->resumer, nullptr).fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(impl_->fiber_fake_stack,
                                  &impl_->resumer_stack,
                                  &impl_->resumer_stack_bytes);
#endif
}

}  // namespace cuda_on_cpu
