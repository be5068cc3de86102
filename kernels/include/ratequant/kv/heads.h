#ifndef RATEQUANT_KV_HEADS_H_
#define RATEQUANT_KV_HEADS_H_

#include <cstdint>

#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Rows of all heads of a layer (K, V, queries), owned by the caller:
// data[head * head_stride + row * row_stride + channel], strides in elements
// and at least head_dim.
struct ConstHeads {
  const void* data = nullptr;  // [heads, rows, head_dim]
  DType dtype = DType::kFloat32;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
};

// The same to write.
struct MutableHeads {
  void* data = nullptr;  // [heads, rows, head_dim]
  DType dtype = DType::kFloat32;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_HEADS_H_
