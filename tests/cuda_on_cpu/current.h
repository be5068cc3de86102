#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_CURRENT_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_CURRENT_H_

#include "tests/cuda_on_cpu/vector_types.h"

namespace cuda_on_cpu {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kMaxBlockThreads = 1024;

// Where a CUDA thread stands.
struct Position {
  uint3 thread_index{};
  uint3 block_index{};
  dim3 block_dim;
  dim3 grid_dim;
  unsigned warp = 0;
  unsigned lane = 0;
  void* dynamic_shared = nullptr;
};

// The CUDA thread that runs on this OS thread; null outside kernels.
extern constinit thread_local const Position* current;

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_CURRENT_H_
