#ifndef RATEQUANT_KERNELS_CUDA_SHARED_MEMORY_H_
#define RATEQUANT_KERNELS_CUDA_SHARED_MEMORY_H_

#include <cuda_runtime.h>

namespace ratequant::kv::cuda {

#ifdef CUDA_ON_CPU
inline unsigned char* DynamicShared() {
  return static_cast<unsigned char*>(::cuda_on_cpu::current->dynamic_shared);
}
#else
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ __align__(128) unsigned char ratequant_dynamic_shared[];
  return ratequant_dynamic_shared;
}
#endif

// The block's dynamic shared memory as a T, not initialised; a launch gives it
// sizeof(T). Kernels keep everything they share in one such struct: it is what
// the tests poison and guard.
template <class T>
__device__ __forceinline__ T& SharedAs() {
  return *reinterpret_cast<T*>(DynamicShared());
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SHARED_MEMORY_H_
