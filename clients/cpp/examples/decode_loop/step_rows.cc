#include "clients/cpp/examples/decode_loop/step_rows.h"

#include <cstring>

namespace ratequant::examples {

StepRows::StepRows(int heads, int max_rows, int head_dim, kv::DType dtype)
    : heads_(heads),
      max_rows_(max_rows),
      head_dim_(head_dim),
      dtype_(dtype),
      data_(size_t(1) * heads * max_rows * head_dim * kv::ElementSize(dtype)) {}

void StepRows::Set(int row, const kv::ConstHeads& sequence, int token) {
  const size_t element = kv::ElementSize(dtype_);
  const size_t row_bytes = head_dim_ * element;
  const auto* from = static_cast<const uint8_t*>(sequence.data);
  for (int head = 0; head < heads_; ++head) {
    const int64_t at =
        head * sequence.head_stride + token * sequence.row_stride;
    std::memcpy(&data_[(size_t(1) * head * max_rows_ + row) * row_bytes],
                from + at * element, row_bytes);
  }
}

kv::ConstHeads StepRows::heads() const {
  return {.data = data_.data(),
          .dtype = dtype_,
          .head_stride = int64_t{1} * max_rows_ * head_dim_,
          .row_stride = head_dim_};
}

}  // namespace ratequant::examples
