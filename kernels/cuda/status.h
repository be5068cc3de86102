#ifndef RATEQUANT_KERNELS_CUDA_STATUS_H_
#define RATEQUANT_KERNELS_CUDA_STATUS_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <utility>

namespace ratequant::kv::cuda {

// The numbers are those of absl::StatusCode.
enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 3,
  kResourceExhausted = 8,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

// What a call on the device came to. Like absl::Status, in plain C++: a machine
// with a GPU may have the CUDA toolkit and no absl.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message)
      : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string message) {
  return {StatusCode::kInvalidArgument, std::move(message)};
}

// OK for cudaSuccess; else RESOURCE_EXHAUSTED when memory ran out, INTERNAL
// otherwise, naming `what` failed.
Status StatusOfCuda(cudaError_t error, const char* what);

// UNAVAILABLE, saying what the runtime said, unless there is a device that runs
// this code. A runtime that fails, as it does without a driver, means none.
Status CheckDevice();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_STATUS_H_
