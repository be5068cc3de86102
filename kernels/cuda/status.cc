#include "kernels/cuda/status.h"

namespace ratequant::kv::cuda {

Status StatusOfCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return Status();
  const std::string message =
      std::string(what) + " failed: " + cudaGetErrorString(error);
  return {error == cudaErrorMemoryAllocation ? StatusCode::kResourceExhausted
                                             : StatusCode::kInternal,
          message};
}

Status CheckDevice() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return Status();
  return {StatusCode::kUnavailable,
          std::string("there is no CUDA device: ") +
              (error == cudaSuccess ? "the runtime found none"
                                    : cudaGetErrorString(error))};
}

}  // namespace ratequant::kv::cuda
