#include "kernels/quantizers/section.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv {
namespace {

absl::Status ValidateRange(const Codec& codec, int first, int count,
                           size_t section_bytes) {
  const int page_tokens = codec.options().page_tokens;
  if (first < 0 || count < 0 || first > page_tokens - count) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows [", first, ", ", first, " + ", count,
                     ") aren't within a page of ", page_tokens, " tokens"));
  }
  if (section_bytes != codec.layout().section_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the section has ", section_bytes, " bytes, not ",
                     codec.layout().section_bytes));
  }
  return absl::OkStatus();
}

absl::Status ValidateRows(const Codec& codec, const void* data, DType dtype,
                          int64_t row_stride, int count) {
  if (ElementSize(dtype) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype ", static_cast<int>(dtype),
        " isn't supported; supported: 0 (fp32), 1 (fp16), 2 (bf16)"));
  }
  if (count > 0 && data == nullptr) {
    return absl::InvalidArgumentError("the rows' data is null");
  }
  if (count > 1 && row_stride < codec.options().head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("row_stride ", row_stride,
                                                   " is below head_dim ",
                                                   codec.options().head_dim));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateCodecOptions(const Codec::Options& options) {
  if (options.tensor != Tensor::kKey && options.tensor != Tensor::kValue) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", static_cast<int>(options.tensor),
                     " isn't supported; supported: 0 (K), 1 (V)"));
  }
  if (options.backend != Backend::kReference &&
      options.backend != Backend::kSimd) {
    return absl::InvalidArgumentError(
        absl::StrCat("backend ", static_cast<int>(options.backend),
                     " isn't supported; supported: 0 (reference), 1 (SIMD)"));
  }
  if (!IsStorageWidth(options.width)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "width ", options.width,
        " isn't supported; supported: 1 to 8 bits, and 16 (fp16)"));
  }
  if (options.width == kFp16Width) {
    return ValidateShape(options.head_dim, options.page_tokens);
  }
  return ValidateQuantizer(options.quantizer, options.head_dim,
                           options.page_tokens);
}

absl::Status ValidateEncode(const Codec& codec, const ConstRows& rows,
                            int first, int count, int skip_tokens,
                            size_t section_bytes) {
  absl::Status status = ValidateRange(codec, first, count, section_bytes);
  if (status.ok()) {
    status = ValidateRows(codec, rows.data, rows.dtype, rows.row_stride, count);
  }
  if (!status.ok()) return status;
  const int granule = codec.token_granule();
  if (first % granule != 0 || count % granule != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows [", first, ", ", first + count,
                     ") aren't whole groups of ", granule, " tokens"));
  }
  if (skip_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("skip_tokens ", skip_tokens, " is negative"));
  }
  return absl::OkStatus();
}

absl::Status ValidateDecode(const Codec& codec, const MutableRows& out,
                            int first, int count, size_t section_bytes) {
  absl::Status status = ValidateRange(codec, first, count, section_bytes);
  if (!status.ok()) return status;
  return ValidateRows(codec, out.data, out.dtype, out.row_stride, count);
}

absl::Status BadValueError(float value, int row, int channel) {
  const std::string place =
      absl::StrCat(" at row ", row, ", channel ", channel);
  if (std::isnan(value)) return absl::DataLossError("NaN" + place);
  if (std::isinf(value)) {
    return absl::DataLossError((value < 0 ? "-Inf" : "Inf") + place);
  }
  return absl::DataLossError(absl::StrCat(
      "value ", value, place, " is beyond fp16's largest magnitude, 65504"));
}

absl::StatusOr<SectionLayout> ComputeSectionLayout(
    const QuantizerSpec& quantizer, Tensor tensor, int width, int head_dim,
    int page_tokens) {
  const absl::Status status = ValidateCodecOptions(
      {quantizer, tensor, width, head_dim, page_tokens, Backend::kReference});
  if (!status.ok()) return status;
  return MakeSectionLayout(quantizer, tensor, width, head_dim, page_tokens);
}

}  // namespace ratequant::kv
