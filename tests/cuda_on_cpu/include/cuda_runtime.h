#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_INCLUDE_CUDA_RUNTIME_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_INCLUDE_CUDA_RUNTIME_H_

// Takes the place of the toolkit's <cuda_runtime.h>, so that g++ compiles CUDA
// kernels as they are and the CPU runs them: one fiber per CUDA thread, one
// block at a time per OS thread. Barriers and warp collectives are exact;
// divergent ones abort with a message.
//
// Nothing of the CUDA toolkit is used: a bare Debian machine has none, and the
// kernels' tests must run there. What is here of its types and functions is
// what the kernels use; a kernel that needs more fails to compile, and the
// missing piece is added here.
//
// Not here: CUB, wmma/mma, cp.async, cooperative groups, streams that overlap
// (every launch has finished when it returns), `extern __shared__` (kernels go
// through kernels/cuda/shared_memory.h). Arrays declared __shared__ inside a
// kernel work, but only dynamic shared memory is poisoned before a block and
// checked for overruns after it.

#define CUDA_ON_CPU 1

#include "tests/cuda_on_cpu/atomics.h"
#include "tests/cuda_on_cpu/block_builtins.h"
#include "tests/cuda_on_cpu/math_builtins.h"
#include "tests/cuda_on_cpu/qualifiers.h"
#include "tests/cuda_on_cpu/runtime_api.h"
#include "tests/cuda_on_cpu/vector_types.h"
#include "tests/cuda_on_cpu/warp_builtins.h"

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_INCLUDE_CUDA_RUNTIME_H_
