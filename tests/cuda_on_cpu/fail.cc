#include "tests/cuda_on_cpu/fail.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "tests/cuda_on_cpu/current.h"

namespace cuda_on_cpu {

void Fail(const char* format, ...) {
  std::fputs("cuda_on_cpu: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (current != nullptr) {
    const uint3& b = current->block_index;
    const uint3& t = current->thread_index;
    std::fprintf(stderr, ", block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y,
                 b.z, t.x, t.y, t.z);
  }
  std::fputc('\n', stderr);
  std::abort();
}

}  // namespace cuda_on_cpu
