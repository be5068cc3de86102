#include "tests/cuda_on_cpu/runtime_api.h"

#include <cstring>
#include <new>

namespace {

constexpr std::align_val_t kDeviceAlignment{256};  // what cudaMalloc promises
constexpr int kGarbage = 0xCD;

int device_count = 1;
thread_local int current_device = 0;

}  // namespace

namespace cuda_on_cpu {

ScopedDeviceCount::ScopedDeviceCount(int count) { device_count = count; }
ScopedDeviceCount::~ScopedDeviceCount() { device_count = 1; }

}  // namespace cuda_on_cpu

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
  }
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count > 0 ? device_count : -1;
  return device_count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count) return cudaErrorInvalidValue;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                   int device) {
  if (attribute != cudaDevAttrMultiProcessorCount || device < 0 ||
      device >= device_count) {
    return cudaErrorInvalidValue;
  }
  *value = 2;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** address, size_t bytes) {
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  *address = ::operator new(bytes, kDeviceAlignment, std::nothrow);
  if (*address == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*address, kGarbage, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* address) {
  ::operator delete(address, kDeviceAlignment);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int byte, size_t bytes,
                            cudaStream_t) {
  if (bytes > 0) std::memset(address, byte, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
