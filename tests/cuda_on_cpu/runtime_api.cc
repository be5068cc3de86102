#include "tests/cuda_on_cpu/runtime_api.h"

#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace {

constexpr std::align_val_t kDeviceAlignment{256};  // what cudaMalloc promises
constexpr int kGarbage = 0xCD;

int device_count = 1;
thread_local int current_device = 0;

// What cudaMalloc gave and cudaFree didn't take: sizes by address.
std::mutex allocations_mutex;
std::map<const char*, size_t> allocations;

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
  if (device < 0 || device >= device_count) return cudaErrorInvalidValue;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(cuda_on_cpu::kMaxDynamicShared);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* address) {
  const char* const place = static_cast<const char*>(address);
  const std::lock_guard<std::mutex> lock(allocations_mutex);
  const auto after = allocations.upper_bound(place);
  const bool on_device =
      after != allocations.begin() &&
      place < std::prev(after)->first + std::prev(after)->second;
  attributes->type =
      on_device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->device = on_device ? 0 : -1;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** address, size_t bytes) {
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  *address = ::operator new(bytes, kDeviceAlignment, std::nothrow);
  if (*address == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*address, kGarbage, bytes);
  const std::lock_guard<std::mutex> lock(allocations_mutex);
  allocations[static_cast<const char*>(*address)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* address) {
  {
    const std::lock_guard<std::mutex> lock(allocations_mutex);
    allocations.erase(static_cast<const char*>(address));
  }
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
