#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/decode.h"
#include "kernels/cuda/dispatch.h"

namespace ratequant::kv::cuda {
namespace {

struct DecodeKernels {
  static constexpr const char* kName = "launching DecodeKernel";
  template <class Lanes, DType kType>
  static auto Get() {
    return &DecodeKernel<Lanes, kType>;
  }
  template <class Lanes>
  static constexpr size_t SharedBytes() {
    return sizeof(DecodeShared);
  }
};

}  // namespace

Status LaunchDecode(const DecodeLaunch& launch, cudaStream_t stream) {
  return LaunchSections<DecodeKernels, DecodeTask>(launch, stream);
}

}  // namespace ratequant::kv::cuda
