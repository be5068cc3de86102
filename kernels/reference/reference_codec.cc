#include "kernels/reference/reference_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/uniform.h"
#include "kernels/reference/tcq_row.h"
#include "kernels/reference/turboquant_row.h"

namespace ratequant::kv {
namespace {

void StoreHalf(float value, uint8_t* bytes) {
  const uint16_t half = HalfOfFloat(value);
  bytes[0] = static_cast<uint8_t>(half & 0xFF);
  bytes[1] = static_cast<uint8_t>(half >> 8);
}

float LoadHalf(const uint8_t* bytes) {
  return FloatOfHalf(static_cast<uint16_t>(bytes[0] | bytes[1] << 8));
}

}  // namespace

void ReferenceCodec::StoreScale(uint8_t* section, int token, int index,
                                float value) const {
  uint8_t* const target = section + params().ScaleOffset(token, index);
  if (params().param_bytes == 1) {
    *target = static_cast<uint8_t>(CodeOfGain(value));
    return;
  }
  StoreHalf(value, target);
}

void ReferenceCodec::StoreZero(uint8_t* section, int token, int index,
                               float value) const {
  StoreHalf(value, section + params().ZeroOffset(token, index));
}

float ReferenceCodec::LoadScale(const uint8_t* section, int token,
                                int index) const {
  const uint8_t* const source = section + params().ScaleOffset(token, index);
  return params().param_bytes == 1 ? GainOfCode(*source) : LoadHalf(source);
}

float ReferenceCodec::LoadZero(const uint8_t* section, int token,
                               int index) const {
  return LoadHalf(section + params().ZeroOffset(token, index));
}

void ReferenceCodec::StoreCodes(uint8_t* section, int token,
                                const std::vector<uint8_t>& codes) const {
  PackCodes(codes.data(), options().width, options().head_dim,
            section + layout().codes_offset + token * layout().row_bytes);
}

absl::Status ReferenceCodec::Encode(const ConstRows& rows, int first, int count,
                                    int skip_tokens,
                                    absl::Span<uint8_t> section) const {
  const absl::Status status =
      ValidateEncode(*this, rows, first, count, skip_tokens, section.size());
  if (!status.ok()) return status;
  const int dim = options().head_dim;
  for (int block = first; block < first + count; block += token_granule()) {
    std::vector<float> values;
    for (int row = block; row < block + token_granule(); ++row) {
      for (int c = 0; c < dim; ++c) {
        const float value = LoadElement(rows.data, rows.dtype,
                                        (row - first) * rows.row_stride + c);
        // A sink isn't encoded, but a bad one is a bad cache all the same.
        if (IsOutsideHalf(value)) return BadValueError(value, row, c);
        values.push_back(options().round_to_half ? RoundToHalf(value) : value);
      }
    }
    EncodeBlock(std::move(values), block, skip_tokens, section.data());
  }
  return absl::OkStatus();
}

void ReferenceCodec::EncodeBlock(std::vector<float> values, int first,
                                 int skip_tokens, uint8_t* section) const {
  if (!stores_halves() && is_channel_wise()) {
    EncodeChannels(values, first, skip_tokens, section);
    return;
  }
  const int token = first;  // the block has one row
  uint8_t* const row =
      section + layout().codes_offset + token * layout().row_bytes;
  if (token < skip_tokens) {
    std::memset(row, 0, layout().row_bytes);
    for (int i = 0; i < params().per_block; ++i) {
      StoreScale(section, token, i, 0.0f);
      if (params().has_zero) StoreZero(section, token, i, 0.0f);
    }
    return;
  }
  if (stores_halves()) {
    for (size_t c = 0; c < values.size(); ++c)
      StoreHalf(values[c], row + 2 * c);
    return;
  }
  switch (options().quantizer.kind) {
    case QuantizerKind::kRtn:
      StoreCodes(section, token, EncodeSymmetricRow(values, token, section));
      return;
    case QuantizerKind::kQuarot:
      Rotate(signs().data(), values.data(), options().head_dim);
      [[fallthrough]];
    case QuantizerKind::kKivi:
      StoreCodes(section, token, EncodeAsymmetricRow(values, token, section));
      return;
    case QuantizerKind::kTurboquant:
      StoreCodes(section, token, EncodeTurboquantRow(values, token, section));
      return;
    case QuantizerKind::kTcq:
      StoreCodes(section, token, EncodeTcqRow(values, token, section));
      return;
  }
}

void ReferenceCodec::EncodeChannels(const std::vector<float>& values, int first,
                                    int skip_tokens, uint8_t* section) const {
  const int dim = options().head_dim;
  const int width = options().width;
  const int start = std::clamp(skip_tokens - first, 0, token_granule());
  std::vector<uint8_t> codes(values.size(), 0);
  for (int c = 0; c < dim; ++c) {
    float scale = 0.0f, zero = 0.0f;
    if (start < token_granule()) {
      float min = values[start * dim + c];
      float max = min;
      for (int t = start; t < token_granule(); ++t) {
        min = std::min(min, values[t * dim + c]);
        max = std::max(max, values[t * dim + c]);
      }
      scale = AsymmetricScale(min, max, width);
      zero = AsymmetricZero(min);
    }
    StoreScale(section, first, c, scale);
    StoreZero(section, first, c, zero);
    for (int t = start; t < token_granule(); ++t) {
      codes[t * dim + c] = static_cast<uint8_t>(AsymmetricCode(
          values[t * dim + c], zero, ReciprocalOrZero(scale), width));
    }
  }
  for (int t = 0; t < token_granule(); ++t) {
    StoreCodes(section, first + t,
               {codes.begin() + t * dim, codes.begin() + (t + 1) * dim});
  }
}

std::vector<uint8_t> ReferenceCodec::EncodeAsymmetricRow(
    const std::vector<float>& values, int token, uint8_t* section) const {
  const int width = options().width;
  std::vector<uint8_t> codes;
  for (int group = 0; group < params().per_block; ++group) {
    const auto begin = values.begin() + group * params().block_channels;
    const auto end = begin + params().block_channels;
    const float min = *std::min_element(begin, end);
    const float max = *std::max_element(begin, end);
    const float scale = AsymmetricScale(min, max, width);
    const float zero = AsymmetricZero(min);
    StoreScale(section, token, group, scale);
    StoreZero(section, token, group, zero);
    for (auto x = begin; x != end; ++x) {
      codes.push_back(static_cast<uint8_t>(
          AsymmetricCode(*x, zero, ReciprocalOrZero(scale), width)));
    }
  }
  return codes;
}

std::vector<uint8_t> ReferenceCodec::EncodeSymmetricRow(
    const std::vector<float>& values, int token, uint8_t* section) const {
  const int width = options().width;
  float abs_max = 0.0f;
  for (const float x : values) abs_max = std::max(abs_max, std::fabs(x));
  const float scale = SymmetricScale(abs_max, width);
  StoreScale(section, token, 0, scale);
  std::vector<uint8_t> codes;
  for (const float x : values) {
    codes.push_back(static_cast<uint8_t>(
        SymmetricCode(x, scale, ReciprocalOrZero(scale), width)));
  }
  return codes;
}

float ReferenceCodec::RotateAndMeasure(std::vector<float>& values) const {
  std::vector<float> squares;
  for (const float x : values) squares.push_back(x * x);
  Rotate(signs().data(), values.data(), options().head_dim);
  return FoldSum(squares.data(), options().head_dim);
}

std::vector<uint8_t> ReferenceCodec::EncodeTurboquantRow(
    std::vector<float> values, int token, uint8_t* section) const {
  const float squared_norm = RotateAndMeasure(values);
  const TurboquantRow row =
      EncodeTurboquant(codebook(), row_scale(), squared_norm, values);
  StoreScale(section, token, 0, row.scale);
  return row.codes;
}

std::vector<uint8_t> ReferenceCodec::EncodeTcqRow(std::vector<float> values,
                                                  int token,
                                                  uint8_t* section) const {
  const float squared_norm = RotateAndMeasure(values);
  const TcqRow row =
      EncodeTcq(codebook(), options().width, row_scale(), squared_norm, values);
  section[params().ScaleOffset(token, 0)] = static_cast<uint8_t>(row.gain);
  return row.codes;
}

std::vector<float> ReferenceCodec::DecodeRow(const uint8_t* section,
                                             int token) const {
  const int dim = options().head_dim;
  const int width = options().width;
  const uint8_t* const row =
      section + layout().codes_offset + token * layout().row_bytes;
  std::vector<float> values;
  for (int c = 0; c < dim; ++c) {
    if (stores_halves()) {
      values.push_back(LoadHalf(row + 2 * c));
      continue;
    }
    const int code = CodeAt(row, width, c);
    const int index = c / params().block_channels;
    const float scale = LoadScale(section, token, index);
    switch (options().quantizer.kind) {
      case QuantizerKind::kRtn:
        values.push_back(SymmetricValue(code, scale, width));
        break;
      case QuantizerKind::kKivi:
      case QuantizerKind::kQuarot:
        values.push_back(
            AsymmetricValue(code, LoadZero(section, token, index), scale));
        break;
      case QuantizerKind::kTurboquant:
        values.push_back(codebook().units[code] * scale);
        break;
      case QuantizerKind::kTcq:
        values.push_back(
            codebook().units[plan().trellis ? TrellisLevelAt(row, width, dim, c)
                                            : code] *
            scale);
        break;
    }
  }
  if (!signs().empty()) RotateBack(signs().data(), values.data(), dim);
  return values;
}

absl::Status ReferenceCodec::Decode(absl::Span<const uint8_t> section,
                                    int first, int count,
                                    const MutableRows& out) const {
  const absl::Status status =
      ValidateDecode(*this, out, first, count, section.size());
  if (!status.ok()) return status;
  for (int i = 0; i < count; ++i) {
    const std::vector<float> values = DecodeRow(section.data(), first + i);
    for (size_t c = 0; c < values.size(); ++c) {
      StoreElement(values[c], out.data, out.dtype, i * out.row_stride + c);
    }
  }
  return absl::OkStatus();
}

}  // namespace ratequant::kv
