#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_TEST_LAUNCH_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_TEST_LAUNCH_H_

#include <cuda_runtime.h>

#include <utility>

namespace cuda_on_cpu {

// Launches a kernel of the shim's own tests.
template <class... Params, class... Args>
cudaError_t Launch(dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(Params...), Args&&... args) {
  cudaLaunchConfig_t config;
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

template <class T>
T* DynamicShared() {
  return static_cast<T*>(current->dynamic_shared);
}

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_TEST_LAUNCH_H_
