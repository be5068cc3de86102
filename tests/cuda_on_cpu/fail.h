#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_FAIL_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_FAIL_H_

namespace cuda_on_cpu {

// Prints the message, and which block and thread ran, and aborts: a kernel that
// does this is broken, on a GPU it would hang or compute anything.
[[noreturn]] __attribute__((format(printf, 1, 2))) void Fail(const char* format,
                                                             ...);

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_FAIL_H_
