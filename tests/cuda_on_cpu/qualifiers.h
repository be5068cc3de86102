#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_QUALIFIERS_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_QUALIFIERS_H_

#define __global__
#define __device__
#define __host__
#define __constant__ static
// All threads of a block are fibers of one OS thread, and no other block runs
// on it meanwhile.
#define __shared__ static thread_local
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_QUALIFIERS_H_
