#include "kernels/cpu/sweep_kernels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "hwy/aligned_allocator.h"
#include "kernels/quantizers/turboquant.h"
#include "kernels/quantizers/uniform.h"
#include "ratequant/kv/bit_width.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sweep_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

// Sums of one row's errors e, weighted with the gradient y.
template <class D>
struct RowErrors {
  explicit RowErrors(D d)
      : square(hn::Zero(d)), weighted(square), projection(square) {}

  HWY_INLINE void Add(hn::Vec<D> decoded, hn::Vec<D> x, hn::Vec<D> y) {
    const auto e = hn::Sub(decoded, x);
    const auto ye = hn::Mul(y, e);
    square = hn::MulAdd(e, e, square);
    weighted = hn::MulAdd(ye, ye, weighted);
    projection = hn::Add(projection, ye);
  }

  hn::Vec<D> square;      // e^2
  hn::Vec<D> weighted;    // (y e)^2
  hn::Vec<D> projection;  // y e
};

// Errors of one quantizer over a block, per width. A lane of fp32 adds up at
// most a block; the rest is in double.
class WidthErrors {
 public:
  template <class D>
  HWY_INLINE void AddRow(D d, size_t width, const RowErrors<D>& row) {
    float* const square = square_[width];
    float* const weighted = weighted_[width];
    hn::Store(hn::Add(hn::Load(d, square), row.square), d, square);
    hn::Store(hn::Add(hn::Load(d, weighted), row.weighted), d, weighted);
    const double projection = hn::GetLane(hn::SumOfLanes(d, row.projection));
    projection_[width] += projection * projection;
  }

  void Flush(size_t width, double gradient_unit, double* pair) const {
    double square = 0, weighted = 0;
    for (int lane = 0; lane < kMaxLanes; ++lane) {
      square += square_[width][lane];
      weighted += weighted_[width][lane];
    }
    pair[0] = square;
    pair[1] = weighted * gradient_unit;
    pair[2] = projection_[width] * gradient_unit;
  }

 private:
  static constexpr int kMaxLanes = 16;

  HWY_ALIGN float square_[kMaxCodeWidth][kMaxLanes] = {};
  HWY_ALIGN float weighted_[kMaxCodeWidth][kMaxLanes] = {};
  double projection_[kMaxCodeWidth] = {};
};

// Measures one block with vectors of D.
template <class D>
class BlockMeasurer {
 public:
  BlockMeasurer(const SweepPlan& plan, const SweepBlock& block)
      : plan_(plan),
        tensor_(block.tensor),
        dim_(plan.dim),
        start_(block.skip_tokens),
        tokens_(block.tokens),
        storage_(hwy::AllocateAligned<float>(2 * size_t{Count()})) {
    const D d;
    float* const x = storage_.get();
    float* const y = x + Count();
    x_ = LoadRow(d, block.values, block.dtype, Count(), x);
    ScaleGradients(LoadRow(d, block.gradients, block.dtype, Count(), y), y);
  }

  void Run(double* sums) {
    SumSquares(sums);
    const size_t widths = plan_.widths.size();
    for (size_t q = 0; q < plan_.quantizers.size(); ++q) {
      errors_ = WidthErrors();
      Measure(plan_.quantizers[q]);
      for (size_t w = 0; w < widths; ++w) {
        errors_.Flush(w, gradient_unit_,
                      sums + SweepSums::kPerGroup +
                          (q * widths + w) * SweepSums::kPerPair);
      }
    }
  }

 private:
  static constexpr int kLanes = NumLanes(D());

  uint32_t Count() const { return static_cast<uint32_t>(tokens_ * dim_); }

  // Gradients have no natural size: their squares could leave fp32. They are
  // scaled by a power of two, exactly, so that the largest is about 1.
  void ScaleGradients(const float* from, float* to) {
    const D d;
    const float largest = AbsMaxOf(d, from, Count());
    int exponent = 0;
    if (largest > 0.0f) std::frexp(largest, &exponent);
    exponent = std::clamp(exponent, -126, 126);
    const auto factor = hn::Set(d, std::ldexp(1.0f, -exponent));
    gradient_unit_ = std::ldexp(1.0, 2 * exponent);
    for (uint32_t i = 0; i < Count(); i += kLanes) {
      hn::Store(hn::Mul(hn::LoadU(d, from + i), factor), d, to + i);
    }
    y_ = to;
  }

  void SumSquares(double* sums) const {
    const D d;
    sums[0] = sums[1] = 0;
    for (int t = start_; t < tokens_; ++t) {
      auto y2 = hn::Zero(d), x2 = hn::Zero(d);
      for (int i = 0; i < dim_; i += kLanes) {
        const auto x = hn::LoadU(d, Values(t) + i);
        const auto y = hn::LoadU(d, Gradients(t) + i);
        y2 = hn::MulAdd(y, y, y2);
        x2 = hn::MulAdd(x, x, x2);
      }
      sums[0] += hn::GetLane(hn::SumOfLanes(d, y2)) * gradient_unit_;
      sums[1] += hn::GetLane(hn::SumOfLanes(d, x2));
    }
  }

  void Measure(const SweepPlan::Quantizer& quantizer) {
    if (quantizer.spec.kind == QuantizerKind::kKivi &&
        tensor_ == Tensor::kKey) {
      const int group = quantizer.spec.group_size;
      for (int t = 0; t < tokens_; t += group) MeasureGroup(t, group);
      return;
    }
    for (int t = start_; t < tokens_; ++t) MeasureRow(quantizer, t);
  }

  void MeasureRow(const SweepPlan::Quantizer& quantizer, int token) {
    const D d;
    switch (quantizer.spec.kind) {
      case QuantizerKind::kRtn:
        MeasureSymmetric(token);
        return;
      case QuantizerKind::kKivi:
        if (quantizer.spec.group_size % kLanes == 0) {
          MeasureChannelGroups(d, quantizer.spec.group_size, token);
        } else {
          MeasureChannelGroups(NarrowTag(), quantizer.spec.group_size, token);
        }
        return;
      case QuantizerKind::kQuarot:
        RotateRow(d, Values(token), quantizer.signs.data(), dim_, rotated_);
        MeasureRotatedRange(quantizer, token);
        return;
      case QuantizerKind::kTurboquant:
        MeasureTurboquant(quantizer, token);
        return;
    }
  }

  void MeasureSymmetric(int token) {
    const D d;
    const float* const x = Values(token);
    const float* const y = Gradients(token);
    const float abs_max = AbsMaxOf(d, x, dim_);
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      const SymmetricRow<D> row(d, abs_max, plan_.widths[w]);
      RowErrors<D> errors(d);
      for (int i = 0; i < dim_; i += kLanes) {
        const auto v = hn::LoadU(d, x + i);
        errors.Add(hn::Mul(row.Levels(d, v), row.scale), v,
                   hn::LoadU(d, y + i));
      }
      errors_.AddRow(d, w, errors);
    }
  }

  // V under kivi.
  template <class DG>
  void MeasureChannelGroups(DG d, int channels, int token) {
    const float* const x = Values(token);
    const float* const y = Gradients(token);
    Range ranges[kMaxDim / 8];
    for (int g = 0; g * channels < dim_; ++g) {
      ranges[g] = RangeOf(d, x + g * channels, channels);
    }
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      const int width = plan_.widths[w];
      const auto max_code = hn::Set(d, static_cast<float>(MaxCode(width)));
      RowErrors<DG> errors(d);
      for (int begin = 0; begin < dim_; begin += channels) {
        const Range range = ranges[begin / channels];
        const float scale_value = AsymmetricScale(range.min, range.max, width);
        const auto scale = hn::Set(d, scale_value);
        const auto reciprocal = hn::Set(d, ReciprocalOrZero(scale_value));
        const auto zero = hn::Set(d, AsymmetricZero(range.min));
        for (int i = begin; i < begin + channels; i += NumLanes(d)) {
          const auto v = hn::LoadU(d, x + i);
          const auto code = AsymmetricCodes(d, v, zero, reciprocal, max_code);
          errors.Add(AsymmetricValues(code, zero, scale), v,
                     hn::LoadU(d, y + i));
        }
      }
      errors_.AddRow(d, w, errors);
    }
  }

  // quarot; rotated_ holds the row.
  void MeasureRotatedRange(const SweepPlan::Quantizer& quantizer, int token) {
    const D d;
    const Range range = RangeOf(d, rotated_, dim_);
    const auto zero = hn::Set(d, AsymmetricZero(range.min));
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      const int width = plan_.widths[w];
      const auto max_code = hn::Set(d, static_cast<float>(MaxCode(width)));
      const float scale_value = AsymmetricScale(range.min, range.max, width);
      const auto scale = hn::Set(d, scale_value);
      const auto reciprocal = hn::Set(d, ReciprocalOrZero(scale_value));
      for (int i = 0; i < dim_; i += kLanes) {
        const auto code = AsymmetricCodes(d, hn::Load(d, rotated_ + i), zero,
                                          reciprocal, max_code);
        hn::Store(AsymmetricValues(code, zero, scale), d, decoded_ + i);
      }
      MeasureDecoded(quantizer, token, w);
    }
  }

  // decoded_ holds the row as decoded, still rotated; destroys it.
  void MeasureDecoded(const SweepPlan::Quantizer& quantizer, int token,
                      size_t w) {
    const D d;
    const float* const x = Values(token);
    const float* const y = Gradients(token);
    Hadamard(d, decoded_, dim_);
    const auto norm = hn::Set(d, InverseSqrtOfDim(dim_));
    RowErrors<D> errors(d);
    for (int i = 0; i < dim_; i += kLanes) {
      const auto factor =
          hn::Mul(norm, hn::LoadU(d, quantizer.signs.data() + i));
      errors.Add(hn::Mul(hn::Load(d, decoded_ + i), factor),
                 hn::LoadU(d, x + i), hn::LoadU(d, y + i));
    }
    errors_.AddRow(d, w, errors);
  }

  void MeasureTurboquant(const SweepPlan::Quantizer& quantizer, int token) {
    const D d;
    const float* const x = Values(token);
    for (int i = 0; i < dim_; i += kLanes) {
      const auto v = hn::LoadU(d, x + i);
      hn::Store(hn::Mul(v, v), d, rotated_ + i);
    }
    const float squared_norm = FoldSum(d, rotated_, dim_);
    RotateRow(d, x, quantizer.signs.data(), dim_, rotated_);
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      const Codebook& codebook = *quantizer.codebooks[w];
      DecodeTurboquant(codebook, RowScaleOf(quantizer.spec), squared_norm);
      MeasureDecoded(quantizer, token, w);
    }
  }

  RowScale RowScaleOf(const QuantizerSpec& spec) const {
    return tensor_ == Tensor::kKey ? spec.key_scale : spec.value_scale;
  }

  void DecodeTurboquant(const Codebook& codebook, RowScale row_scale,
                        float squared_norm) {
    switch (codebook.width) {
      case 1:
        return DecodeTurboquant<1>(codebook, row_scale, squared_norm);
      case 2:
        return DecodeTurboquant<2>(codebook, row_scale, squared_norm);
      case 3:
        return DecodeTurboquant<3>(codebook, row_scale, squared_norm);
      case 4:
        return DecodeTurboquant<4>(codebook, row_scale, squared_norm);
      case 5:
        return DecodeTurboquant<5>(codebook, row_scale, squared_norm);
      case 6:
        return DecodeTurboquant<6>(codebook, row_scale, squared_norm);
      case 7:
        return DecodeTurboquant<7>(codebook, row_scale, squared_norm);
      case 8:
        return DecodeTurboquant<8>(codebook, row_scale, squared_norm);
    }
  }

  // rotated_ through the codes of one width into decoded_.
  template <int kWidth>
  void DecodeTurboquant(const Codebook& codebook, RowScale row_scale,
                        float squared_norm) {
    const D d;
    const auto factor = hn::Set(d, CodebookFactor(squared_norm, dim_));
    for (int i = 0; i < dim_; i += kLanes) {
      const auto y = hn::Load(d, rotated_ + i);
      const auto code =
          CodesOfCoordinates<kWidth>(d, codebook, hn::Mul(y, factor));
      const auto unit = UnitsOfCodes<kWidth>(d, codebook, code);
      hn::Store(unit, d, decoded_ + i);
      hn::Store(hn::Mul(y, unit), d, products_ + i);
    }
    const float dot =
        row_scale == RowScale::kUnbiased ? FoldSum(d, products_, dim_) : 0.0f;
    const auto scale =
        hn::Set(d, TurboquantScale(row_scale, squared_norm, dot));
    for (int i = 0; i < dim_; i += kLanes) {
      hn::Store(hn::Mul(hn::Load(d, decoded_ + i), scale), d, decoded_ + i);
    }
  }

  // K under kivi: `count` tokens from `first` on, each channel with its range.
  void MeasureGroup(int first, int count) {
    const D d;
    const int start = std::max(first, start_);
    if (start >= first + count) return;
    for (int i = 0; i < dim_; i += kLanes) {
      auto min = hn::LoadU(d, Values(start) + i);
      auto max = min;
      for (int t = start + 1; t < first + count; ++t) {
        const auto v = hn::LoadU(d, Values(t) + i);
        min = hn::Min(min, v);
        max = hn::Max(max, v);
      }
      hn::Store(hn::Add(hn::Sub(max, min), hn::Zero(d)), d, range_ + i);
      hn::Store(RoundToHalves(d, hn::Add(min, hn::Zero(d))), d, zero_ + i);
    }
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      const auto max_code =
          hn::Set(d, static_cast<float>(MaxCode(plan_.widths[w])));
      for (int i = 0; i < dim_; i += kLanes) {
        const auto scale =
            RoundToHalves(d, hn::Div(hn::Load(d, range_ + i), max_code));
        hn::Store(scale, d, scale_ + i);
        hn::Store(Reciprocals(d, scale), d, reciprocal_ + i);
      }
      for (int t = start; t < first + count; ++t) {
        RowErrors<D> errors(d);
        for (int i = 0; i < dim_; i += kLanes) {
          const auto v = hn::LoadU(d, Values(t) + i);
          const auto zero = hn::Load(d, zero_ + i);
          const auto code = AsymmetricCodes(
              d, v, zero, hn::Load(d, reciprocal_ + i), max_code);
          errors.Add(AsymmetricValues(code, zero, hn::Load(d, scale_ + i)), v,
                     hn::LoadU(d, Gradients(t) + i));
        }
        errors_.AddRow(d, w, errors);
      }
    }
  }

  const float* Values(int token) const { return x_ + token * dim_; }
  const float* Gradients(int token) const { return y_ + token * dim_; }

  const SweepPlan& plan_;
  const Tensor tensor_;
  const int dim_;
  const int start_;
  const int tokens_;
  hwy::AlignedFreeUniquePtr<float[]> storage_;
  const float* x_ = nullptr;
  const float* y_ = nullptr;  // scaled
  double gradient_unit_ = 1;  // what squares of y_ are to be multiplied with
  WidthErrors errors_;
  HWY_ALIGN float rotated_[kMaxDim];
  HWY_ALIGN float decoded_[kMaxDim];
  HWY_ALIGN float products_[kMaxDim];
  HWY_ALIGN float range_[kMaxDim];
  HWY_ALIGN float zero_[kMaxDim];
  HWY_ALIGN float scale_[kMaxDim];
  HWY_ALIGN float reciprocal_[kMaxDim];
};

void MeasureBlock(const SweepPlan& plan, const SweepBlock& block,
                  double* sums) {
  if (plan.dim % 16 == 0) {
    BlockMeasurer<WideTag>(plan, block).Run(sums);
  } else {
    BlockMeasurer<NarrowTag>(plan, block).Run(sums);
  }
}

bool CheckBlock(const SweepBlock& block, int dim, bool& has_nonzero) {
  const NarrowTag d;
  HWY_ALIGN float buffer[kMaxDim];
  const size_t row_bytes = dim * ElementSize(block.dtype);
  has_nonzero = false;
  for (int t = 0; t < block.tokens; ++t) {
    const float* x =
        LoadRow(d, static_cast<const char*>(block.values) + t * row_bytes,
                block.dtype, dim, buffer);
    if (!AllWithin(d, x, dim, kMaxHalf)) return false;
    if (t >= block.skip_tokens && !has_nonzero) {
      has_nonzero = AbsMaxOf(d, x, dim) != 0.0f;
    }
    const float* y =
        LoadRow(d, static_cast<const char*>(block.gradients) + t * row_bytes,
                block.dtype, dim, buffer);
    if (!AllWithin(d, y, dim, FLT_MAX)) return false;
  }
  return true;
}

const SweepKernels* SweepKernelTable() {
  static constexpr SweepKernels kKernels = {&MeasureBlock, &CheckBlock};
  return &kKernels;
}

#else

const SweepKernels* SweepKernelTable() { return nullptr; }

#endif  // RQ_HAS_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {

HWY_EXPORT(SweepKernelTable);

const SweepKernels* GetSweepKernels() {
  return HWY_DYNAMIC_DISPATCH(SweepKernelTable)();
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
