#include "kernels/cache/head_checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ratequant::kv {
namespace {

template <typename... What>
absl::Status Invalid(const HeadsShape& shape, const What&... what) {
  return absl::InvalidArgumentError(absl::StrCat(shape.name, ": ", what...));
}

template <typename Heads>
absl::Status CheckHeads(const Heads& heads, const HeadsShape& shape) {
  if (heads.data == nullptr) {
    return Invalid(shape, "null, with ", shape.rows, " rows");
  }
  const int size = static_cast<int>(ElementSize(heads.dtype));
  if (size == 0) {
    return Invalid(shape, "dtype ", static_cast<int>(heads.dtype),
                   " is not supported; supported are 0 (float32), 1 (float16) "
                   "and 2 (bfloat16)");
  }
  const int alignment = std::max(size, shape.alignment);
  if (reinterpret_cast<uintptr_t>(heads.data) % alignment != 0) {
    return Invalid(shape, "the address isn't a multiple of ", alignment,
                   " bytes");
  }
  const auto check_stride = [&](absl::string_view what, int64_t stride) {
    if (stride < shape.head_dim) {
      return Invalid(shape, what, " stride ", stride, " is below head_dim ",
                     shape.head_dim);
    }
    if (stride * size % alignment != 0) {
      return Invalid(shape, what, " stride ", stride, " isn't a multiple of ",
                     alignment, " bytes");
    }
    return absl::OkStatus();
  };
  absl::Status status;
  if (shape.rows > 1) status = check_stride("row", heads.row_stride);
  if (status.ok() && shape.heads > 1) {
    status = check_stride("head", heads.head_stride);
  }
  return status;
}

}  // namespace

absl::Status CheckInput(const ConstHeads& heads, const HeadsShape& shape) {
  return CheckHeads(heads, shape);
}

// Outputs of two heads may lie one behind the other or interleaved row by row,
// but not on top of each other.
absl::Status CheckOutput(const MutableHeads& heads, const HeadsShape& shape) {
  absl::Status status = CheckHeads(heads, shape);
  if (!status.ok() || shape.rows <= 1 || shape.heads == 1 ||
      heads.head_stride >=
          heads.row_stride * (shape.rows - 1) + shape.head_dim ||
      heads.row_stride >=
          heads.head_stride * (shape.heads - 1) + shape.head_dim) {
    return status;
  }
  return Invalid(shape, "with row stride ", heads.row_stride,
                 " and head stride ", heads.head_stride, " the rows of ",
                 shape.heads, " heads and ", shape.rows, " tokens overlap");
}

}  // namespace ratequant::kv
