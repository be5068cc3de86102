#include "tests/kernels/cuda/scalar_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/limits.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/tcq.h"
#include "kernels/quantizers/trellis.h"
#include "kernels/quantizers/trellis_codebook.h"
#include "kernels/quantizers/turboquant.h"
#include "kernels/quantizers/uniform.h"

namespace ratequant::kv::cuda {
namespace {

using Row = std::vector<float>;

// One section and how it is coded.
class Section {
 public:
  Section(const BatchCase& batch, const SectionCase& section_case)
      : dim_(batch.head_dim),
        width_(section_case.format.width),
        quantizer_(section_case.format.quantizer),
        row_scale_(section_case.format.tensor == Tensor::kKey
                       ? quantizer_.key_scale
                       : quantizer_.value_scale),
        layout_(MakeSectionLayout(quantizer_, section_case.format.tensor,
                                  width_, dim_, batch.page_tokens)) {
    if (width_ != 16) {
      params_ = MakeParamLayout(quantizer_, section_case.format.tensor, dim_,
                                batch.page_tokens);
    }
    for (int c = 0; c < dim_; ++c) {
      signs_.push_back(RotationSign(quantizer_.seed, c));
    }
  }

  // Rows of one block of tokens, from page row `token` on; the first `skip` of
  // them are sinks.
  void EncodeBlock(std::vector<Row> rows, int token, int skip,
                   uint8_t* section) const;
  Row DecodeRow(const uint8_t* section, int token) const;

  int block_tokens() const { return params_.block_tokens; }

 private:
  struct Range {
    float scale = 0.0f, zero = 0.0f;
  };
  struct Coded {
    std::vector<Range> ranges;  // one a parameter
    std::vector<uint8_t> codes;
  };

  Range RangeOf(const Row& values) const {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return {AsymmetricScale(*low, *high, width_), AsymmetricZero(*low)};
  }
  int CodeIn(const Range& range, float x) const {
    return AsymmetricCode(x, range.zero, ReciprocalOrZero(range.scale), width_);
  }

  Coded EncodeRow(Row row) const;
  Coded EncodeCodebookRow(Row row) const;
  Coded EncodeTcqRow(Row row) const;
  // The unit that code `c` of a row of tcq stands for.
  float TcqUnit(const uint8_t* codes, int c) const;
  void StoreHalf(float value, uint8_t* bytes) const {
    const uint16_t half = HalfOfFloat(value);
    std::memcpy(bytes, &half, sizeof(half));
  }
  float LoadHalf(const uint8_t* bytes) const {
    uint16_t half;
    std::memcpy(&half, bytes, sizeof(half));
    return FloatOfHalf(half);
  }
  void StoreRange(const Range& range, int token, int index,
                  uint8_t* section) const {
    if (params_.param_bytes == 1) {
      section[params_.ScaleOffset(token, index)] =
          static_cast<uint8_t>(range.scale);
      return;
    }
    StoreHalf(range.scale, section + params_.ScaleOffset(token, index));
    if (!params_.has_zero) return;
    StoreHalf(range.zero, section + params_.ZeroOffset(token, index));
  }
  size_t RowOffset(int token) const {
    return layout_.codes_offset + token * layout_.row_bytes;
  }

  const int dim_;
  const int width_;
  const QuantizerSpec quantizer_;
  const RowScale row_scale_;
  const SectionLayout layout_;
  ParamLayout params_;
  std::vector<float> signs_;
};

void Section::EncodeBlock(std::vector<Row> rows, int token, int skip,
                          uint8_t* section) const {
  for (int t = 0; t < skip; ++t) rows[t].assign(dim_, 0.0f);
  if (width_ == 16) {
    for (int c = 0; c < dim_; ++c) {
      StoreHalf(rows[0][c], section + RowOffset(token) + 2 * c);
    }
    return;
  }
  if (params_.block_tokens == 1) {
    const Coded coded = EncodeRow(rows[0]);
    for (size_t i = 0; i < coded.ranges.size(); ++i) {
      StoreRange(coded.ranges[i], token, static_cast<int>(i), section);
    }
    PackCodes(coded.codes.data(), width_, dim_, section + RowOffset(token));
    return;
  }
  std::vector<std::vector<uint8_t>> codes(rows.size(),
                                          std::vector<uint8_t>(dim_, 0));
  for (int c = 0; c < dim_; ++c) {
    Row channel;
    for (size_t t = skip; t < rows.size(); ++t) channel.push_back(rows[t][c]);
    const Range range = channel.empty() ? Range() : RangeOf(channel);
    StoreRange(range, token, c, section);
    for (size_t t = skip; t < rows.size(); ++t) {
      codes[t][c] = static_cast<uint8_t>(CodeIn(range, rows[t][c]));
    }
  }
  for (size_t t = 0; t < rows.size(); ++t) {
    PackCodes(codes[t].data(), width_, dim_,
              section + RowOffset(token + static_cast<int>(t)));
  }
}

Section::Coded Section::EncodeRow(Row row) const {
  Coded coded;
  if (quantizer_.kind == QuantizerKind::kTurboquant) {
    return EncodeCodebookRow(row);
  }
  if (quantizer_.kind == QuantizerKind::kTcq) return EncodeTcqRow(row);
  if (quantizer_.kind == QuantizerKind::kRtn) {
    float abs_max = 0.0f;
    for (const float x : row) abs_max = std::max(abs_max, std::fabs(x));
    const float scale = SymmetricScale(abs_max, width_);
    coded.ranges.push_back({scale, 0.0f});
    for (const float x : row) {
      coded.codes.push_back(static_cast<uint8_t>(
          SymmetricCode(x, scale, ReciprocalOrZero(scale), width_)));
    }
    return coded;
  }
  if (quantizer_.kind == QuantizerKind::kQuarot) {
    Rotate(signs_.data(), row.data(), dim_);
  }
  for (int c = 0; c < dim_; c += params_.block_channels) {
    const Row group(row.begin() + c, row.begin() + c + params_.block_channels);
    coded.ranges.push_back(RangeOf(group));
    for (const float x : group) {
      coded.codes.push_back(
          static_cast<uint8_t>(CodeIn(coded.ranges.back(), x)));
    }
  }
  return coded;
}

Section::Coded Section::EncodeCodebookRow(Row row) const {
  const Codebook& codebook = GetCodebook(dim_, width_);
  Row squares;
  for (const float x : row) squares.push_back(x * x);
  const float squared_norm = FoldSum(squares.data(), dim_);
  Rotate(signs_.data(), row.data(), dim_);
  const float factor = CodebookFactor(squared_norm, dim_);
  Coded coded;
  Row products;
  for (const float y : row) {
    const int code =
        CodebookCode(y * factor, codebook.thresholds.data(), (1 << width_) - 1);
    coded.codes.push_back(static_cast<uint8_t>(code));
    products.push_back(y * codebook.units[code]);
  }
  const float dot = FoldSum(products.data(), dim_);
  const float scale = TurboquantScale(row_scale_, squared_norm, dot);
  coded.ranges.push_back({scale, 0.0f});
  if (scale == 0.0f) coded.codes.assign(dim_, 0);
  return coded;
}

// The range's scale is the code of the gain.
Section::Coded Section::EncodeTcqRow(Row row) const {
  const bool trellis = IsTrellisWidth(width_);
  const Codebook& codebook =
      trellis ? GetTrellisCodebook(dim_, width_) : GetCodebook(dim_, width_);
  Row squares;
  for (const float x : row) squares.push_back(x * x);
  const float squared_norm = FoldSum(squares.data(), dim_);
  Rotate(signs_.data(), row.data(), dim_);
  const int gain = TcqGain(squared_norm);
  Row z = row;
  for (float& value : z) value *= TcqFactor(gain, dim_);
  Coded coded;
  coded.codes.resize(dim_);
  std::vector<int> levels(dim_);
  if (trellis) {
    std::vector<uint16_t> decisions(dim_);
    TrellisPath(z.data(), 1, dim_, width_, codebook.levels.data(),
                decisions.data())
        .Find([&](int c, int code, int level) {
          coded.codes[c] = static_cast<uint8_t>(code);
          levels[c] = level;
        });
  } else {
    for (int c = 0; c < dim_; ++c) {
      levels[c] =
          CodebookCode(z[c], codebook.thresholds.data(), (1 << width_) - 1);
      coded.codes[c] = static_cast<uint8_t>(levels[c]);
    }
  }
  for (int c = 0; c < dim_; ++c) row[c] *= codebook.units[levels[c]];
  const int stored =
      TcqStoredGain(row_scale_, squared_norm, gain, FoldSum(row.data(), dim_));
  coded.ranges.push_back({static_cast<float>(stored), 0.0f});
  if (stored == 0) coded.codes.assign(dim_, 0);
  return coded;
}

float Section::TcqUnit(const uint8_t* codes, int c) const {
  const int code = CodeAt(codes, width_, c);
  if (!IsTrellisWidth(width_)) return GetCodebook(dim_, width_).units[code];
  unsigned window = 0;
  for (int back = 0; back <= kTrellisMemory; ++back) {
    window |= (CodeAt(codes, width_, (c + dim_ - back) % dim_) & 1u) << back;
  }
  return GetTrellisCodebook(dim_, width_)
      .units[kTrellisSubsets * (code >> 1) + TrellisSubset(window)];
}

Row Section::DecodeRow(const uint8_t* section, int token) const {
  const uint8_t* const codes = section + RowOffset(token);
  Row row;
  for (int c = 0; c < dim_; ++c) {
    if (width_ == 16) {
      row.push_back(LoadHalf(codes + 2 * c));
      continue;
    }
    if (quantizer_.kind == QuantizerKind::kTcq) {
      row.push_back(TcqUnit(codes, c) *
                    GainOfCode(section[params_.ScaleOffset(token, 0)]));
      continue;
    }
    const int code = CodeAt(codes, width_, c);
    const int index = c / params_.block_channels;
    const float scale = LoadHalf(section + params_.ScaleOffset(token, index));
    if (quantizer_.kind == QuantizerKind::kRtn) {
      row.push_back(SymmetricValue(code, scale, width_));
    } else if (quantizer_.kind == QuantizerKind::kTurboquant) {
      row.push_back(GetCodebook(dim_, width_).units[code] * scale);
    } else {
      row.push_back(AsymmetricValue(
          code, LoadHalf(section + params_.ZeroOffset(token, index)), scale));
    }
  }
  if (IsRotated(quantizer_.kind) && width_ != 16)
    RotateBack(signs_.data(), row.data(), dim_);
  return row;
}

}  // namespace

void ScalarOracle::Encode(const BatchCase& batch,
                          const SectionCase& section_case, const void* rows,
                          uint8_t* section) const {
  const Section coder(batch, section_case);
  const int step = coder.block_tokens();
  for (int row = 0; row < section_case.count; row += step) {
    std::vector<Row> block(step, Row(batch.head_dim));
    for (int t = 0; t < step; ++t) {
      for (int c = 0; c < batch.head_dim; ++c) {
        block[t][c] =
            LoadElement(rows, batch.dtype, (row + t) * batch.row_stride + c);
      }
    }
    const int token = section_case.first + row;
    coder.EncodeBlock(block, token,
                      std::clamp(section_case.skip_tokens - token, 0, step),
                      section);
  }
}

void ScalarOracle::Decode(const BatchCase& batch,
                          const SectionCase& section_case,
                          const uint8_t* section, int first, int count,
                          void* rows) const {
  const Section coder(batch, section_case);
  for (int row = 0; row < count; ++row) {
    const Row values = coder.DecodeRow(section, first + row);
    for (int c = 0; c < batch.head_dim; ++c) {
      StoreElement(values[c], rows, batch.dtype, row * batch.row_stride + c);
    }
  }
}

}  // namespace ratequant::kv::cuda
