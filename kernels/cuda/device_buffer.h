#ifndef RATEQUANT_KERNELS_CUDA_DEVICE_BUFFER_H_
#define RATEQUANT_KERNELS_CUDA_DEVICE_BUFFER_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/status.h"

namespace ratequant::kv::cuda {

// `size()` elements in device memory. Move-only; freed with the buffer. Not
// initialised.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { Swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    Swap(other);
    return *this;
  }

  T* data() const { return data_; }
  size_t size() const { return size_; }

  // Frees what it had. RESOURCE_EXHAUSTED leaves the buffer empty.
  Status Allocate(size_t size) {
    DeviceBuffer fresh;
    void* memory = nullptr;
    const Status status =
        StatusOfCuda(cudaMalloc(&memory, size * sizeof(T)), "cudaMalloc");
    if (status.ok()) {
      fresh.data_ = static_cast<T*>(memory);
      fresh.size_ = size;
    }
    Swap(fresh);
    return status;
  }

  // Both copy size() elements, in order with `stream`; the host memory must
  // stay until the stream has got there.
  Status CopyFrom(const T* host, cudaStream_t stream) {
    return StatusOfCuda(cudaMemcpyAsync(data_, host, size_ * sizeof(T),
                                        cudaMemcpyHostToDevice, stream),
                        "copying to the device");
  }
  Status CopyTo(T* host, cudaStream_t stream) const {
    return StatusOfCuda(cudaMemcpyAsync(host, data_, size_ * sizeof(T),
                                        cudaMemcpyDeviceToHost, stream),
                        "copying from the device");
  }

 private:
  void Swap(DeviceBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_DEVICE_BUFFER_H_
