#include "kernels/cuda/paged_layer.h"

#include <string>

namespace ratequant::kv::cuda {
namespace {

bool IsVectorAddress(const void* address) {
  return address != nullptr && reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace

Status CheckPagedLayer(const PagedLayer& layer, const FormatTable* formats) {
  if (formats == nullptr || formats->size() == 0) {
    return InvalidArgument("the launch has no format table");
  }
  const LayerMemory& memory = layer.memory;
  if (memory.head_dim != formats->head_dim() ||
      memory.page_tokens != formats->page_tokens()) {
    return InvalidArgument("the layer has head_dim " +
                           std::to_string(memory.head_dim) + " and " +
                           std::to_string(memory.page_tokens) +
                           " tokens a page, its format table head_dim " +
                           std::to_string(formats->head_dim()) + " and " +
                           std::to_string(formats->page_tokens()));
  }
  if (memory.kv_heads < 1) {
    return InvalidArgument("kv_heads " + std::to_string(memory.kv_heads) +
                           " isn't supported; supported: 1 and more");
  }
  if (!IsVectorAddress(memory.pages) || !IsVectorAddress(memory.sidecars)) {
    return InvalidArgument(
        "the layer's pages or sidecars are null or not a multiple of 16");
  }
  if (memory.block_table == nullptr || memory.groups == nullptr ||
      layer.formats == nullptr) {
    return InvalidArgument(
        "the layer's block table, groups or formats are null");
  }
  return Status();
}

Status CheckHeads(const char* name, const ConstHeads& heads, int head_dim) {
  const std::string what = name;
  const int64_t element = static_cast<int64_t>(ElementSize(heads.dtype));
  if (element == 0) {
    return InvalidArgument(what + ": dtype " +
                           std::to_string(static_cast<int>(heads.dtype)) +
                           " isn't supported; supported: 0 (fp32), 1 (fp16), "
                           "2 (bf16)");
  }
  if (!IsVectorAddress(heads.data)) {
    return InvalidArgument(what + ": data is null or not a multiple of 16");
  }
  const auto check_stride = [&](const char* stride_name, int64_t stride) {
    if (stride >= head_dim && stride * element % 16 == 0) return Status();
    return InvalidArgument(
        what + ": " + stride_name + " " + std::to_string(stride) +
        " isn't supported; supported: head_dim, " + std::to_string(head_dim) +
        ", and above, in multiples of 16 bytes");
  };
  const Status status = check_stride("head_stride", heads.head_stride);
  return status.ok() ? check_stride("row_stride", heads.row_stride) : status;
}

Status CheckKeysAndValues(const ConstHeads& keys, const ConstHeads& values,
                          int head_dim) {
  if (keys.dtype != values.dtype) {
    return InvalidArgument(
        "keys have dtype " + std::to_string(static_cast<int>(keys.dtype)) +
        ", values " + std::to_string(static_cast<int>(values.dtype)) +
        "; supported: one dtype");
  }
  const Status status = CheckHeads("keys", keys, head_dim);
  return status.ok() ? CheckHeads("values", values, head_dim) : status;
}

}  // namespace ratequant::kv::cuda
