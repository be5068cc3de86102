#include <algorithm>
#include <cstring>

#include "kernels/cpu/row_kernels.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/tcq.h"
#include "kernels/quantizers/turboquant.h"
#include "kernels/quantizers/uniform.h"
#include "ratequant/kv/bit_width.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/encode_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/bits-inl.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/trellis_search-inl.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

HWY_INLINE void PutHalf(float value, uint8_t* bytes) {
  const uint16_t half = HalfOfFloat(value);
  memcpy(bytes, &half, sizeof(half));
}

template <class D>
HWY_INLINE void PutCodes(D, hn::Vec<IntTag<D>> codes, uint8_t* target) {
  const hn::Rebind<uint8_t, D> d8;
  hn::StoreU(hn::DemoteTo(d8, codes), d8, target);
}

// Encodes rows of one section with vectors of D.
template <class D>
class Encoder {
 public:
  Encoder(const RowPlan& plan, uint8_t* section)
      : plan_(plan),
        section_(section),
        dim_(plan.dim),
        packer_(HWY_MIN(plan.width, kMaxCodeWidth)) {}

  int Run(const ConstRows& rows, int first, int count, int skip_tokens) {
    const int granule = plan_.params.block_tokens;
    for (int row = first; row < first + count; row += granule) {
      const ConstRows block = {RowData(rows, row - first), rows.dtype,
                               rows.row_stride};
      const bool good = granule > 1 ? EncodeGroup(block, row, skip_tokens)
                                    : EncodeRow(block, row, skip_tokens);
      if (!good) return row;
    }
    return -1;
  }

 private:
  static constexpr int kLanes = NumLanes(D());

  const void* RowData(const ConstRows& rows, int row) const {
    return static_cast<const char*>(rows.data) +
           row * rows.row_stride *
               static_cast<int64_t>(ElementSize(rows.dtype));
  }

  uint8_t* RowCodes(int token) const {
    return section_ + plan_.layout.codes_offset +
           token * plan_.layout.row_bytes;
  }

  // The floats of a row, in `row_` or where they lie; null when one of them is
  // outside fp16's range.
  const float* LoadChecked(const void* row, DType dtype) {
    const D d;
    if (plan_.round_to_half && dtype != DType::kFloat16) {
      return LoadRounded(d, row, dtype, dim_, kMaxHalf, row_) ? row_ : nullptr;
    }
    const float* const x = LoadRow(d, row, dtype, dim_, row_);
    return AllWithin(d, x, dim_, kMaxHalf) ? x : nullptr;
  }

  bool EncodeRow(const ConstRows& source, int token, int skip_tokens) {
    const D d;
    const float* const x = LoadChecked(source.data, source.dtype);
    if (x == nullptr) return false;
    if (token < skip_tokens) {
      ClearRow(token);
    } else if (plan_.stores_halves) {
      for (int i = 0; i < dim_; i += kLanes) {
        StoreHalves(d, hn::LoadU(d, x + i), RowCodes(token) + 2 * i);
      }
    } else {
      QuantizeRow(x, token);
      StoreCodes(token);
    }
    return true;
  }

  void ClearRow(int token) const {
    memset(RowCodes(token), 0, plan_.layout.row_bytes);
    const size_t bytes = plan_.params.per_block * plan_.params.param_bytes;
    if (bytes == 0) return;
    memset(section_ + plan_.params.ScaleOffset(token, 0), 0, bytes);
    if (plan_.params.has_zero) {
      memset(section_ + plan_.params.ZeroOffset(token, 0), 0, bytes);
    }
  }

  void StoreCodes(int token) {
    packer_.PackRow(codes_, dim_, packed_);
    memcpy(RowCodes(token), packed_, plan_.layout.row_bytes);
  }

  void ZeroCodes() { memset(codes_, 0, dim_); }

  void QuantizeRow(const float* x, int token) {
    switch (plan_.kind) {
      case QuantizerKind::kRtn:
        SymmetricCodes(x, token);
        return;
      case QuantizerKind::kKivi:
        AsymmetricRow(x, token);
        return;
      case QuantizerKind::kQuarot:
        RotateRow(D(), x, plan_.signs, dim_, rotated_);
        AsymmetricRow(rotated_, token);
        return;
      case QuantizerKind::kTurboquant:
        TurboquantCodes(x, token);
        return;
      case QuantizerKind::kTcq:
        TcqCodes(x, token);
        return;
    }
  }

  void SymmetricCodes(const float* HWY_RESTRICT x, int token) {
    const D d;
    const IntTag<D> di;
    const SymmetricRow<D> row(d, AbsMaxOf(d, x, dim_), plan_.width);
    PutHalf(row.scale_value, section_ + plan_.params.ScaleOffset(token, 0));
    if (row.scale_value == 0.0f) return ZeroCodes();
    // Levels -1 and +1 become 0 and 1, others are shifted.
    const auto offset = hn::Set(di, -SymmetricOffset(plan_.width));
    for (int i = 0; i < dim_; i += kLanes) {
      auto code =
          hn::Add(hn::NearestInt(row.Levels(d, hn::LoadU(d, x + i))), offset);
      if (row.one_bit) code = hn::ShiftRight<1>(code);
      PutCodes(d, code, codes_ + i);
    }
  }

  void AsymmetricRow(const float* HWY_RESTRICT x, int token) {
    // A group of 8 channels is narrower than the widest vectors.
    const int channels = plan_.params.block_channels;
    if (channels % kLanes == 0) {
      AsymmetricGroups(D(), x, channels, token);
    } else {
      AsymmetricGroups(NarrowTag(), x, channels, token);
    }
  }

  template <class DG>
  void AsymmetricGroups(DG d, const float* HWY_RESTRICT x, int channels,
                        int token) {
    const auto max_code = hn::Set(d, static_cast<float>(MaxCode(plan_.width)));
    for (int group = 0; group < plan_.params.per_block; ++group) {
      const int begin = group * channels;
      const Range range = RangeOf(d, x + begin, channels);
      const float scale = AsymmetricScale(range.min, range.max, plan_.width);
      const float zero = AsymmetricZero(range.min);
      PutHalf(scale, section_ + plan_.params.ScaleOffset(token, group));
      PutHalf(zero, section_ + plan_.params.ZeroOffset(token, group));
      const auto zeros = hn::Set(d, zero);
      const auto reciprocal = hn::Set(d, ReciprocalOrZero(scale));
      for (int i = begin; i < begin + channels; i += NumLanes(d)) {
        PutCodes(d,
                 hn::NearestInt(AsymmetricCodes(d, hn::LoadU(d, x + i), zeros,
                                                reciprocal, max_code)),
                 codes_ + i);
      }
    }
  }

  // rotated_ from a row; returns the row's squared norm.
  float RotateAndMeasure(const float* HWY_RESTRICT x) {
    const D d;
    for (int i = 0; i < dim_; i += kLanes) {
      const auto v = hn::LoadU(d, x + i);
      hn::Store(hn::Mul(v, v), d, rotated_ + i);
    }
    const float squared_norm = FoldSum(d, rotated_, dim_);
    RotateRow(d, x, plan_.signs, dim_, rotated_);
    return squared_norm;
  }

  // codes_ from rotated_ times `factor`; products_ with the codes' units too
  // where `needs_dot`.
  void CodebookCodes(float factor, bool needs_dot) {
    switch (plan_.width) {
      case 1:
        return CodebookCodes<1>(factor, needs_dot);
      case 2:
        return CodebookCodes<2>(factor, needs_dot);
      case 3:
        return CodebookCodes<3>(factor, needs_dot);
      case 4:
        return CodebookCodes<4>(factor, needs_dot);
      case 5:
        return CodebookCodes<5>(factor, needs_dot);
      case 6:
        return CodebookCodes<6>(factor, needs_dot);
      case 7:
        return CodebookCodes<7>(factor, needs_dot);
      case 8:
        return CodebookCodes<8>(factor, needs_dot);
    }
  }

  template <int kWidth>
  void CodebookCodes(float factor, bool needs_dot) {
    const D d;
    const auto factors = hn::Set(d, factor);
    for (int i = 0; i < dim_; i += kLanes) {
      const auto y = hn::Load(d, rotated_ + i);
      const auto code =
          CodesOfCoordinates<kWidth>(d, *plan_.codebook, hn::Mul(y, factors));
      PutCodes(d, code, codes_ + i);
      if (!needs_dot) continue;
      const auto unit = UnitsOfCodes<kWidth>(d, *plan_.codebook, code);
      hn::Store(hn::Mul(y, unit), d, products_ + i);
    }
  }

  // The same by a trellis.
  void TrellisCodes(float factor, bool needs_dot) {
    const D d;
    const auto factors = hn::Set(d, factor);
    for (int i = 0; i < dim_; i += kLanes) {
      hn::Store(hn::Mul(hn::Load(d, rotated_ + i), factors), d, products_ + i);
    }
    trellis_.Code(products_, dim_, plan_.width, plan_.codebook->levels.data(),
                  codes_, levels_);
    if (!needs_dot) return;
    for (int i = 0; i < dim_; ++i) {
      products_[i] = rotated_[i] * plan_.codebook->units[levels_[i]];
    }
  }

  void TurboquantCodes(const float* HWY_RESTRICT x, int token) {
    const float squared_norm = RotateAndMeasure(x);
    const bool needs_dot = plan_.row_scale == RowScale::kUnbiased;
    CodebookCodes(CodebookFactor(squared_norm, dim_), needs_dot);
    const float dot = needs_dot ? FoldSum(D(), products_, dim_) : 0.0f;
    const float scale = TurboquantScale(plan_.row_scale, squared_norm, dot);
    PutHalf(scale, section_ + plan_.params.ScaleOffset(token, 0));
    if (scale == 0.0f) ZeroCodes();
  }

  void TcqCodes(const float* HWY_RESTRICT x, int token) {
    const float squared_norm = RotateAndMeasure(x);
    const bool needs_dot = plan_.row_scale == RowScale::kUnbiased;
    int gain = TcqGain(squared_norm);
    const float factor = TcqFactor(gain, dim_);
    if (plan_.trellis) {
      TrellisCodes(factor, needs_dot);
    } else {
      CodebookCodes(factor, needs_dot);
    }
    const float dot = needs_dot ? FoldSum(D(), products_, dim_) : 0.0f;
    gain = TcqStoredGain(plan_.row_scale, squared_norm, gain, dot);
    section_[plan_.params.ScaleOffset(token, 0)] = static_cast<uint8_t>(gain);
    if (gain == 0) ZeroCodes();
  }

  // K under kivi: a group of tokens, each channel with its own range.
  bool EncodeGroup(const ConstRows& group, int first, int skip_tokens) {
    const D d;
    const int tokens = plan_.params.block_tokens;
    const int start = std::clamp(skip_tokens - first, 0, tokens);
    for (int t = 0; t < tokens; ++t) {
      const float* const x = LoadChecked(RowData(group, t), group.dtype);
      if (x == nullptr) return false;
      if (t < start) continue;
      for (int i = 0; i < dim_; i += kLanes) {
        const auto v = hn::LoadU(d, x + i);
        const auto min = t == start ? v : hn::Min(v, hn::Load(d, min_ + i));
        const auto max = t == start ? v : hn::Max(v, hn::Load(d, max_ + i));
        hn::Store(min, d, min_ + i);
        hn::Store(max, d, max_ + i);
      }
    }
    if (start == tokens) {
      memset(min_, 0, sizeof(min_));
      memset(max_, 0, sizeof(max_));
    }
    StoreGroupParams(first);
    const auto max_code = hn::Set(d, static_cast<float>(MaxCode(plan_.width)));
    for (int t = 0; t < tokens; ++t) {
      if (t < start) {
        memset(RowCodes(first + t), 0, plan_.layout.row_bytes);
        continue;
      }
      const float* const x = LoadChecked(RowData(group, t), group.dtype);
      for (int i = 0; i < dim_; i += kLanes) {
        // min_ and max_ now hold zeros and reciprocals.
        PutCodes(d,
                 hn::NearestInt(AsymmetricCodes(
                     d, hn::LoadU(d, x + i), hn::Load(d, min_ + i),
                     hn::Load(d, max_ + i), max_code)),
                 codes_ + i);
      }
      StoreCodes(first + t);
    }
    return true;
  }

  // Writes the parameters of min_ and max_, and turns these into zeros and
  // reciprocals of scales as the decoder sees them.
  void StoreGroupParams(int first) {
    const D d;
    const auto levels = hn::Set(d, static_cast<float>(MaxCode(plan_.width)));
    for (int i = 0; i < dim_; i += kLanes) {
      uint8_t* const scales = section_ + plan_.params.ScaleOffset(first, i);
      uint8_t* const zeros = section_ + plan_.params.ZeroOffset(first, i);
      const auto min = hn::Load(d, min_ + i);
      const auto range =
          hn::Add(hn::Sub(hn::Load(d, max_ + i), min), hn::Zero(d));
      StoreHalves(d, hn::Div(range, levels), scales);
      StoreHalves(d, hn::Add(min, hn::Zero(d)), zeros);
      hn::Store(LoadHalves(d, zeros), d, min_ + i);
      hn::Store(Reciprocals(d, LoadHalves(d, scales)), d, max_ + i);
    }
  }

  const RowPlan& plan_;
  uint8_t* const section_;
  const int dim_;
  const Packer packer_;
  HWY_ALIGN float row_[kMaxDim];
  HWY_ALIGN float rotated_[kMaxDim];
  HWY_ALIGN float products_[kMaxDim];
  HWY_ALIGN float min_[kMaxDim];
  HWY_ALIGN float max_[kMaxDim];
  HWY_ALIGN uint8_t codes_[kMaxDim + kBitSlack] = {};
  HWY_ALIGN uint8_t packed_[kMaxDim + kBitSlack];
  uint8_t levels_[kMaxDim];
  TrellisCoder trellis_;
};

int EncodeRows(const RowPlan& plan, const ConstRows& rows, int first, int count,
               int skip_tokens, uint8_t* section) {
  if (plan.dim % 16 == 0) {
    return Encoder<WideTag>(plan, section).Run(rows, first, count, skip_tokens);
  }
  return Encoder<NarrowTag>(plan, section).Run(rows, first, count, skip_tokens);
}

EncodeRowsFunction* EncodeRowsForTarget() { return &EncodeRows; }

#else

EncodeRowsFunction* EncodeRowsForTarget() { return nullptr; }

#endif  // RQ_HAS_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {

HWY_EXPORT(EncodeRowsForTarget);

EncodeRowsFunction* GetEncodeRows() {
  return HWY_DYNAMIC_DISPATCH(EncodeRowsForTarget)();
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
