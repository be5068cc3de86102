#include "kernels/cuda/section_format.h"

#include <string>

#include "kernels/quantizers/limits.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv::cuda {
namespace {

Status Unsupported(const std::string& name, int64_t value,
                   const std::string& supported) {
  return InvalidArgument(name + " " + std::to_string(value) +
                         " isn't supported; supported: " + supported);
}

Status CheckShape(int head_dim, int page_tokens) {
  if (!IsHeadDim(head_dim)) {
    return Unsupported("head_dim", head_dim, "multiples of 8 from 8 to 512");
  }
  if (!IsPageTokens(page_tokens)) {
    return Unsupported("page_tokens", page_tokens, "16, 32, 64, 128");
  }
  return Status();
}

Status CheckGroups(int group_size, int head_dim, int page_tokens) {
  if (!IsGroupSize(group_size)) {
    return Unsupported("group_size", group_size, "8, 16, 32, 64, 128");
  }
  const std::string multiples =
      "multiples of kivi's group_size " + std::to_string(group_size);
  if (head_dim % group_size != 0) {
    return Unsupported("head_dim", head_dim, multiples);
  }
  if (page_tokens % group_size != 0) {
    return Unsupported("page_tokens", page_tokens, multiples);
  }
  return Status();
}

CodeKind KindOf(const FormatSpec& spec) {
  if (spec.width == kFp16Width) return CodeKind::kHalf;
  switch (spec.quantizer.kind) {
    case QuantizerKind::kRtn:
      return CodeKind::kSymmetricRow;
    case QuantizerKind::kKivi:
      return spec.tensor == Tensor::kKey ? CodeKind::kChannel
                                         : CodeKind::kAsymmetricRow;
    case QuantizerKind::kQuarot:
      return CodeKind::kRotatedRow;
    case QuantizerKind::kTurboquant:
    case QuantizerKind::kTcq:
      break;
  }
  return CodeKind::kCodebookRow;
}

}  // namespace

Status CheckFormat(const FormatSpec& spec, int head_dim, int page_tokens) {
  if (spec.tensor != Tensor::kKey && spec.tensor != Tensor::kValue) {
    return Unsupported("tensor", static_cast<int>(spec.tensor), "0 (K), 1 (V)");
  }
  if (!IsStorageWidth(spec.width)) {
    return Unsupported("width", spec.width, "1 to 8 bits, and 16 (fp16)");
  }
  const Status shape = CheckShape(head_dim, page_tokens);
  if (!shape.ok() || spec.width == kFp16Width) return shape;
  switch (spec.quantizer.kind) {
    case QuantizerKind::kRtn:
      return Status();
    case QuantizerKind::kKivi:
      return CheckGroups(spec.quantizer.group_size, head_dim, page_tokens);
    case QuantizerKind::kQuarot:
    case QuantizerKind::kTurboquant:
    case QuantizerKind::kTcq:
      if (IsPowerOfTwo(head_dim)) break;
      return Unsupported("head_dim", head_dim,
                         "powers of two from 8 to 512 where heads are rotated");
    default:
      return Unsupported("quantizer kind",
                         static_cast<int>(spec.quantizer.kind),
                         "1 (rtn), 2 (kivi), 3 (quarot), 4 (turboquant), "
                         "5 (tcq)");
  }
  for (const RowScale scale :
       {spec.quantizer.key_scale, spec.quantizer.value_scale}) {
    if (!IsKnownScale(scale)) {
      return Unsupported("row scale", static_cast<int>(scale),
                         "1 (l2), 2 (unbiased)");
    }
  }
  return Status();
}

SectionFormat MakeSectionFormat(const FormatSpec& spec, int head_dim,
                                int page_tokens) {
  const SectionLayout layout = MakeSectionLayout(
      spec.quantizer, spec.tensor, spec.width, head_dim, page_tokens);
  SectionFormat format;
  format.kind = KindOf(spec);
  format.width = spec.width;
  format.codes_offset = static_cast<uint32_t>(layout.codes_offset);
  format.row_bytes = static_cast<uint32_t>(layout.row_bytes);
  if (format.kind == CodeKind::kHalf) return format;
  format.params =
      MakeParamLayout(spec.quantizer, spec.tensor, head_dim, page_tokens);
  format.seed = spec.quantizer.seed;
  format.row_scale = spec.tensor == Tensor::kKey ? spec.quantizer.key_scale
                                                 : spec.quantizer.value_scale;
  const bool trellis =
      spec.quantizer.kind == QuantizerKind::kTcq && IsTrellisWidth(spec.width);
  format.index_width = trellis ? spec.width + 1 : spec.width;
  return format;
}

}  // namespace ratequant::kv::cuda
