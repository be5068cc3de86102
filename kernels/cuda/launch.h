#ifndef RATEQUANT_KERNELS_CUDA_LAUNCH_H_
#define RATEQUANT_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/status.h"

namespace ratequant::kv::cuda {

// Dynamic shared memory that any kernel may ask for without further ado.
inline constexpr size_t kPlainSharedBytes = 48 * 1024;

// Starts `kernel` on `stream`; errors of an earlier launch on the device may be
// reported here too. Nothing is allocated, nothing waited for.
template <class... Params, class... Args>
Status Launch(const char* name, void (*kernel)(Params...), dim3 grid,
              dim3 block, size_t shared_bytes, cudaStream_t stream,
              Args&&... args) {
  if (shared_bytes > kPlainSharedBytes) {
    const Status status =
        StatusOfCuda(cudaFuncSetAttribute(
                         kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes)),
                     name);
    if (!status.ok()) return status;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return StatusOfCuda(
      cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), name);
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_LAUNCH_H_
