#ifndef RATEQUANT_KV_TENSOR_H_
#define RATEQUANT_KV_TENSOR_H_

#include <cstddef>
#include <cstdint>

namespace ratequant::kv {

// Element types of tensors handed in and out. Numbers are part of the C ABI:
// do not change.
enum class DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// Bytes of one element; 0 for a value outside the enum.
constexpr size_t ElementSize(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
  }
  return 0;
}

// Which half of the cache a row belongs to. Numbers are part of the C ABI.
enum class Tensor : int32_t { kKey = 0, kValue = 1 };

// Read-only rows of one head, owned by the caller:
// data[token * row_stride + channel], row_stride in elements.
struct ConstRows {
  const void* data = nullptr;  // [num_tokens, head_dim]
  DType dtype = DType::kFloat32;
  int64_t row_stride = 0;
};

// Rows of one head to write, owned by the caller.
struct MutableRows {
  void* data = nullptr;  // [num_tokens, head_dim]
  DType dtype = DType::kFloat32;
  int64_t row_stride = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_TENSOR_H_
