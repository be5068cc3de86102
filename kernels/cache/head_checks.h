#ifndef RATEQUANT_KERNELS_CACHE_HEAD_CHECKS_H_
#define RATEQUANT_KERNELS_CACHE_HEAD_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/heads.h"

namespace ratequant::kv {

// The shape that a caller's tensor must have, and what it is called in errors.
struct HeadsShape {
  absl::string_view name;
  int heads = 0;
  int64_t rows = 0;
  int head_dim = 0;
  // Of addresses and strides in bytes; 1: the element's size.
  int alignment = 1;
};

// INVALID_ARGUMENT for a null pointer, a dtype, an address or a stride that
// isn't supported.
absl::Status CheckInput(const ConstHeads& heads, const HeadsShape& shape);

// The same, and for rows that lie on top of each other.
absl::Status CheckOutput(const MutableHeads& heads, const HeadsShape& shape);

// With a single row the row stride is never used, and callers may pass
// anything.
template <typename Heads>
Heads Normalized(Heads heads, const HeadsShape& shape) {
  if (shape.rows <= 1) heads.row_stride = shape.head_dim;
  return heads;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_HEAD_CHECKS_H_
