#ifndef RATEQUANT_TESTS_KERNELS_CUDA_UPLOAD_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_UPLOAD_H_

#include <vector>

#include "kernels/cuda/device_buffer.h"

namespace ratequant::kv::cuda {

// Makes `buffer` a copy of `values`, on the default stream.
template <class T>
Status Upload(const std::vector<T>& values, DeviceBuffer<T>* buffer) {
  Status status = buffer->Allocate(values.size());
  return status.ok() ? buffer->CopyFrom(values.data(), nullptr) : status;
}

// The buffer's content once the default stream has got there.
template <class T>
Status Download(const DeviceBuffer<T>& buffer, std::vector<T>* values) {
  values->resize(buffer.size());
  Status status = buffer.CopyTo(values->data(), nullptr);
  return status.ok() ? StatusOfCuda(cudaStreamSynchronize(nullptr), "a kernel")
                     : status;
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_UPLOAD_H_
