#include "kernels/cpu/simd_codec.h"

#include "kernels/quantizers/element.h"

namespace ratequant::kv {

SimdCodec::SimdCodec(const Options& options, EncodeRowsFunction* encode_rows,
                     DecodeRowsFunction* decode_rows)
    : CodecBase(options),
      encode_rows_(encode_rows),
      decode_rows_(decode_rows) {}

absl::Status SimdCodec::Encode(const ConstRows& rows, int first, int count,
                               int skip_tokens,
                               absl::Span<uint8_t> section) const {
  const absl::Status status =
      ValidateEncode(*this, rows, first, count, skip_tokens, section.size());
  if (!status.ok()) return status;
  const int bad =
      encode_rows_(plan(), rows, first, count, skip_tokens, section.data());
  if (bad < 0) return absl::OkStatus();
  for (int row = bad; row < bad + token_granule(); ++row) {
    for (int c = 0; c < options().head_dim; ++c) {
      const float value = LoadElement(rows.data, rows.dtype,
                                      (row - first) * rows.row_stride + c);
      if (IsOutsideHalf(value)) return BadValueError(value, row, c);
    }
  }
  return absl::InternalError("the rows changed while they were encoded");
}

absl::Status SimdCodec::Decode(absl::Span<const uint8_t> section, int first,
                               int count, const MutableRows& out) const {
  const absl::Status status =
      ValidateDecode(*this, out, first, count, section.size());
  if (status.ok()) decode_rows_(plan(), section.data(), first, count, out);
  return status;
}

}  // namespace ratequant::kv
