#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/output_change.cuh"
#include "kernels/cuda/output_change.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kThreads = kOutputWarps * 32;
constexpr int kMaxColumnBlocks = 256;
constexpr int kMaxGridY = 65535;

Status Unsupported(const char* name, int64_t value,
                   const std::string& supported) {
  return InvalidArgument(std::string(name) + " " + std::to_string(value) +
                         " isn't supported; supported: " + supported);
}

Status CheckHead(const OutputHead& head) {
  if (head.tokens < kOutputTileRows || head.tokens % kOutputTileRows != 0) {
    return Unsupported("tokens", head.tokens,
                       "multiples of " + std::to_string(kOutputTileRows));
  }
  if (head.head_dim < kChannelStep || head.head_dim > kMaxHeadDim ||
      head.head_dim % kChannelStep != 0) {
    return Unsupported("head_dim", head.head_dim,
                       "multiples of " + std::to_string(kChannelStep) + " to " +
                           std::to_string(kMaxHeadDim));
  }
  if (head.share < 1 || head.share > kMaxGridY) {
    return Unsupported("query heads of a KV head", head.share, "1 to 65535");
  }
  if (ElementSize(head.dtype) == 0) {
    return Unsupported("dtype", static_cast<int>(head.dtype),
                       "0 (fp32), 1 (fp16), 2 (bf16)");
  }
  if (head.keys == nullptr || head.values == nullptr ||
      head.queries == nullptr || head.gradients == nullptr ||
      head.scores == nullptr || head.weights == nullptr ||
      head.costs == nullptr) {
    return InvalidArgument("the head's tensors or matrices are null");
  }
  return Status();
}

}  // namespace

Status LaunchExactAttention(const OutputHead& head, cudaStream_t stream) {
  const Status checked = CheckHead(head);
  if (!checked.ok()) return checked;
  return Launch("launching ExactAttentionKernel", &ExactAttentionKernel,
                dim3(head.tokens / kOutputTileRows, head.share), dim3(kThreads),
                sizeof(OutputShared), stream, head);
}

Status LaunchOutputChanges(const OutputHead& head, const OutputPairs& pairs,
                           cudaStream_t stream) {
  const Status checked = CheckHead(head);
  if (!checked.ok()) return checked;
  if (pairs.count < 1 || pairs.count > kMaxGridY) {
    return Unsupported("pairs", pairs.count, "1 to 65535");
  }
  if (pairs.decoded == nullptr || pairs.columns == nullptr ||
      pairs.sums == nullptr) {
    return InvalidArgument("the pairs' rows, columns or sums are null");
  }
  const int64_t elements = int64_t{head.tokens} * head.head_dim;
  const int blocks = static_cast<int>(std::min<int64_t>(
      kMaxColumnBlocks, (elements + kThreads - 1) / kThreads));
  const Status columns =
      Launch("launching OutputColumnsKernel", &OutputColumnsKernel,
             dim3(blocks, pairs.count), dim3(kThreads), 0, stream, head, pairs);
  if (!columns.ok()) return columns;
  return Launch("launching OutputChangeKernel",
                pairs.tensor == Tensor::kKey ? &OutputChangeKernel<true>
                                             : &OutputChangeKernel<false>,
                dim3(head.tokens / kOutputTileRows, pairs.count),
                dim3(kThreads), sizeof(OutputShared), stream, head, pairs);
}

}  // namespace ratequant::kv::cuda
