#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/encode.cuh"
#include "kernels/cuda/encode.h"

namespace ratequant::kv::cuda {
namespace {

struct EncodeKernels {
  static constexpr const char* kName = "launching EncodeKernel";
  template <class Lanes, DType kType>
  static auto Get() {
    return &EncodeKernel<Lanes, kType>;
  }
  template <class Lanes>
  static constexpr size_t SharedBytes() {
    return sizeof(EncodeShared<Lanes>);
  }
};

}  // namespace

Status LaunchEncode(const EncodeLaunch& launch, cudaStream_t stream) {
  return LaunchSections<EncodeKernels, EncodeTask>(launch, stream);
}

}  // namespace ratequant::kv::cuda
