#include <cstring>

#include "kernels/cpu/row_kernels.h"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/uniform.h"
#include "ratequant/kv/bit_width.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/bits-inl.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/trellis_levels-inl.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

HWY_INLINE float GetHalf(const uint8_t* bytes) {
  uint16_t half;
  memcpy(&half, bytes, sizeof(half));
  return FloatOfHalf(half);
}

// Decodes rows of one section with vectors of D.
template <class D>
class Decoder {
 public:
  Decoder(const RowPlan& plan, const uint8_t* section)
      : plan_(plan),
        section_(section),
        dim_(plan.dim),
        unpacker_(D(), HWY_MIN(plan.width, kMaxCodeWidth)),
        narrow_unpacker_(NarrowTag(), HWY_MIN(plan.width, kMaxCodeWidth)) {}

  void Run(int first, int count, const MutableRows& out) {
    const D d;
    const int64_t row_bytes =
        out.row_stride * static_cast<int64_t>(ElementSize(out.dtype));
    for (int i = 0; i < count; ++i) {
      void* const target = static_cast<char*>(out.data) + i * row_bytes;
      if (out.dtype == DType::kFloat32) {
        DecodeRow(first + i, static_cast<float*>(target));
      } else {
        DecodeRow(first + i, row_);
        StoreRow(d, row_, dim_, target, out.dtype);
      }
    }
  }

 private:
  static constexpr int kLanes = NumLanes(D());

  // The row's codes with kBitSlack readable bytes behind them.
  const uint8_t* RowCodes(int token) {
    const size_t offset =
        plan_.layout.codes_offset + token * plan_.layout.row_bytes;
    const size_t end = offset + plan_.layout.row_bytes + kBitSlack;
    if (end <= plan_.layout.section_bytes) return section_ + offset;
    memcpy(packed_, section_ + offset, plan_.layout.row_bytes);
    return packed_;
  }

  float Gain(int token) const {
    return GainOfCode(section_[plan_.params.ScaleOffset(token, 0)]);
  }
  float Scale(int token, int index) const {
    return GetHalf(section_ + plan_.params.ScaleOffset(token, index));
  }
  float Zero(int token, int index) const {
    return GetHalf(section_ + plan_.params.ZeroOffset(token, index));
  }

  void DecodeRow(int token, float* HWY_RESTRICT out) {
    const D d;
    if (plan_.stores_halves) {
      const uint8_t* const row =
          section_ + plan_.layout.codes_offset + token * plan_.layout.row_bytes;
      for (int i = 0; i < dim_; i += kLanes) {
        hn::StoreU(LoadHalves(d, row + 2 * i), d, out + i);
      }
      return;
    }
    switch (plan_.kind) {
      case QuantizerKind::kRtn:
        SymmetricRowValues(token, out);
        return;
      case QuantizerKind::kKivi:
        if (plan_.params.block_tokens > 1) {
          ChannelValues(token, out);
        } else {
          AsymmetricRow(token, out);
        }
        return;
      case QuantizerKind::kQuarot:
        AsymmetricRow(token, rotated_);
        RotateRowBack(d, rotated_, plan_.signs, dim_, out);
        return;
      case QuantizerKind::kTurboquant:
        CodebookValues(token, Scale(token, 0));
        RotateRowBack(d, rotated_, plan_.signs, dim_, out);
        return;
      case QuantizerKind::kTcq:
        if (plan_.trellis) {
          TrellisValues(token, Gain(token));
        } else {
          CodebookValues(token, Gain(token));
        }
        RotateRowBack(d, rotated_, plan_.signs, dim_, out);
        return;
    }
  }

  void SymmetricRowValues(int token, float* HWY_RESTRICT out) {
    const D d;
    const IntTag<D> di;
    const uint8_t* const row = RowCodes(token);
    const auto scale = hn::Set(d, Scale(token, 0));
    const auto offset = hn::Set(di, SymmetricOffset(plan_.width));
    for (int i = 0; i < dim_; i += kLanes) {
      auto code = unpacker_.Codes(d, row, i);
      if (plan_.width == 1) code = hn::Add(code, code);
      const auto level = hn::ConvertTo(d, hn::Add(code, offset));
      hn::StoreU(hn::Mul(level, scale), d, out + i);
    }
  }

  void AsymmetricRow(int token, float* HWY_RESTRICT out) {
    const int channels = plan_.params.block_channels;
    if (channels % kLanes == 0) {
      AsymmetricGroups(D(), unpacker_, token, channels, out);
    } else {
      AsymmetricGroups(NarrowTag(), narrow_unpacker_, token, channels, out);
    }
  }

  template <class DG>
  void AsymmetricGroups(DG d, const Unpacker<DG>& unpacker, int token,
                        int channels, float* HWY_RESTRICT out) {
    const uint8_t* const row = RowCodes(token);
    for (int group = 0; group < plan_.params.per_block; ++group) {
      const auto scale = hn::Set(d, Scale(token, group));
      const auto zero = hn::Set(d, Zero(token, group));
      const int begin = group * channels;
      for (int i = begin; i < begin + channels; i += NumLanes(d)) {
        const auto code = hn::ConvertTo(d, unpacker.Codes(d, row, i));
        hn::StoreU(AsymmetricValues(code, zero, scale), d, out + i);
      }
    }
  }

  // K under kivi.
  void ChannelValues(int token, float* HWY_RESTRICT out) {
    const D d;
    const int group = token / plan_.params.block_tokens;
    if (group != loaded_group_) {
      for (int i = 0; i < dim_; i += kLanes) {
        hn::Store(LoadHalves(d, section_ + plan_.params.ScaleOffset(token, i)),
                  d, scales_ + i);
        hn::Store(LoadHalves(d, section_ + plan_.params.ZeroOffset(token, i)),
                  d, zeros_ + i);
      }
      loaded_group_ = group;
    }
    const uint8_t* const row = RowCodes(token);
    for (int i = 0; i < dim_; i += kLanes) {
      const auto code = hn::ConvertTo(d, unpacker_.Codes(d, row, i));
      hn::StoreU(AsymmetricValues(code, hn::Load(d, zeros_ + i),
                                  hn::Load(d, scales_ + i)),
                 d, out + i);
    }
  }

  void CodebookValues(int token, float scale) {
    switch (plan_.width) {
      case 1:
        return CodebookValues<1>(token, scale);
      case 2:
        return CodebookValues<2>(token, scale);
      case 3:
        return CodebookValues<3>(token, scale);
      case 4:
        return CodebookValues<4>(token, scale);
      case 5:
        return CodebookValues<5>(token, scale);
      case 6:
        return CodebookValues<6>(token, scale);
      case 7:
        return CodebookValues<7>(token, scale);
      case 8:
        return CodebookValues<8>(token, scale);
    }
  }

  template <int kWidth>
  void CodebookValues(int token, float scale) {
    const D d;
    const uint8_t* const row = RowCodes(token);
    const auto scales = hn::Set(d, scale);
    for (int i = 0; i < dim_; i += kLanes) {
      const auto unit =
          UnitsOfCodes<kWidth>(d, *plan_.codebook, unpacker_.Codes(d, row, i));
      hn::Store(hn::Mul(unit, scales), d, rotated_ + i);
    }
  }

  void TrellisValues(int token, float gain) {
    switch (plan_.width) {
      case 1:
        return TrellisValues<1>(token, gain);
      case 2:
        return TrellisValues<2>(token, gain);
      case 3:
        return TrellisValues<3>(token, gain);
      case 4:
        return TrellisValues<4>(token, gain);
    }
  }

  template <int kWidth>
  void TrellisValues(int token, float gain) {
    const D d;
    const auto gains = hn::Set(d, gain);
    TrellisLevels<kWidth, D>(d, *plan_.codebook)
        .ForRow(d, RowCodes(token), dim_,
                [&](int i, hn::Vec<D> units) HWY_ATTR {
                  hn::Store(hn::Mul(units, gains), d, rotated_ + i);
                });
  }

  const RowPlan& plan_;
  const uint8_t* const section_;
  const int dim_;
  const Unpacker<D> unpacker_;
  const Unpacker<NarrowTag> narrow_unpacker_;
  int loaded_group_ = -1;  // whose parameters scales_ and zeros_ hold
  HWY_ALIGN float row_[kMaxDim];
  HWY_ALIGN float rotated_[kMaxDim];
  HWY_ALIGN float scales_[kMaxDim];
  HWY_ALIGN float zeros_[kMaxDim];
  HWY_ALIGN uint8_t packed_[kMaxDim + kBitSlack] = {};
};

void DecodeRows(const RowPlan& plan, const uint8_t* section, int first,
                int count, const MutableRows& out) {
  if (plan.dim % 16 == 0) {
    Decoder<WideTag>(plan, section).Run(first, count, out);
  } else {
    Decoder<NarrowTag>(plan, section).Run(first, count, out);
  }
}

DecodeRowsFunction* DecodeRowsForTarget() { return &DecodeRows; }

#else

DecodeRowsFunction* DecodeRowsForTarget() { return nullptr; }

#endif  // RQ_HAS_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {

HWY_EXPORT(DecodeRowsForTarget);

DecodeRowsFunction* GetDecodeRows() {
  return HWY_DYNAMIC_DISPATCH(DecodeRowsForTarget)();
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
