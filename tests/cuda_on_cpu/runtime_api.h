#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_RUNTIME_API_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_RUNTIME_API_H_

#include <cstddef>
#include <utility>

#include "tests/cuda_on_cpu/launch.h"
#include "tests/cuda_on_cpu/vector_types.h"

// The runtime API on host memory: one device, and everything has happened when
// a call returns.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
};

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3,
};

struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

using cudaStream_t = struct CUstream_st*;

struct cudaLaunchAttribute;

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
// Whether the address lies in what cudaMalloc gave.
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* address);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
// A device of two multiprocessors.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                   int device);

// Filled with garbage, as a GPU's memory is.
cudaError_t cudaMalloc(void** address, size_t bytes);
cudaError_t cudaFree(void* address);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemsetAsync(void* address, int byte, size_t bytes,
                            cudaStream_t stream = nullptr);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

template <class... Params>
cudaError_t cudaFuncSetAttribute(void (*)(Params...), cudaFuncAttribute,
                                 int bytes) {
  return static_cast<size_t>(bytes) <= ::cuda_on_cpu::kMaxDynamicShared
             ? cudaSuccess
             : cudaErrorInvalidValue;
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Params...), Args&&... args) {
  const ::cuda_on_cpu::LaunchShape shape{config->gridDim, config->blockDim,
                                         config->dynamicSmemBytes};
  if (!::cuda_on_cpu::IsLaunchable(shape)) return cudaErrorInvalidConfiguration;
  // Parameters are copied to every thread, as a GPU does it.
  ::cuda_on_cpu::RunGrid(shape, [&] { kernel(static_cast<Params>(args)...); });
  return cudaSuccess;
}

namespace cuda_on_cpu {

// How many devices cudaGetDeviceCount finds while it lives; with none, it fails
// as the real one does and leaves -1.
class ScopedDeviceCount {
 public:
  explicit ScopedDeviceCount(int count);
  ~ScopedDeviceCount();
  ScopedDeviceCount(const ScopedDeviceCount&) = delete;
  ScopedDeviceCount& operator=(const ScopedDeviceCount&) = delete;
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_RUNTIME_API_H_
