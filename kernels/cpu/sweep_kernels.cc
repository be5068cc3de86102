#include "kernels/cpu/sweep_kernels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "hwy/aligned_allocator.h"
#include "kernels/quantizers/sweep/sums.h"
#include "kernels/quantizers/turboquant.h"
#include "kernels/quantizers/uniform.h"
#include "ratequant/kv/bit_width.h"

// The registry's quantizers become part of every target.
#define RQ_SWEEP_BEGIN      \
  HWY_BEFORE_NAMESPACE();   \
  namespace ratequant::kv { \
  namespace HWY_NAMESPACE {
#define RQ_SWEEP_END \
  }                  \
  }                  \
  HWY_AFTER_NAMESPACE();

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sweep_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/cpu/vector_row-inl.h"
#include "kernels/quantizers/sweep/registry-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

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
    double* pair = sums + SweepSums::kPerGroup;
    for (size_t q = 0; q < plan_.quantizers.size(); ++q) {
      errors_ = WidthErrors();
      SweepQuantizers::Visit(plan_.quantizers[q].spec.kind,
                             MeasureWith{*this, plan_.quantizers[q]});
      for (size_t w = 0; w < widths; ++w) {
        errors_.Flush(w, gradient_unit_, pair);
        pair += SweepSums::kPerPair;
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

  struct MeasureWith {
    BlockMeasurer& measurer;
    const SweepPlan::Quantizer& quantizer;
    template <class Quantizer>
    HWY_INLINE void operator()(Quantizer) const {
      measurer.template Measure<Quantizer>(quantizer);
    }
  };

  template <class Quantizer>
  void Measure(const SweepPlan::Quantizer& quantizer) {
    VectorRow<D> row(plan_, quantizer, tensor_, errors_);
    const int group = Quantizer::ColumnTokens(quantizer.spec, tensor_);
    if (group > 0) {
      for (int t = 0; t < tokens_; t += group) {
        MeasureColumns<typename Quantizer::ColumnGrid>(t, group, row);
      }
      return;
    }
    for (int t = start_; t < tokens_; ++t) {
      row.Reset(Values(t), Gradients(t));
      Quantizer::MeasureRow(row, quantizer.spec);
    }
  }

  // `count` tokens from `first` on, each channel with its grid.
  template <class Grid>
  void MeasureColumns(int first, int count, VectorRow<D>& row) {
    const int start = std::max(first, start_);
    if (start >= first + count) return;
    FindColumnRanges(start, first + count);
    for (size_t w = 0; w < plan_.widths.size(); ++w) {
      for (int i = 0; i < dim_; ++i) {
        const GridParams<float> grid =
            Grid::Make({low_[i], high_[i]}, plan_.widths[w]);
        column_params_.zero[i] = grid.zero;
        column_params_.scale[i] = grid.scale;
        column_params_.reciprocal[i] = grid.reciprocal;
      }
      for (int t = start; t < first + count; ++t) {
        row.Reset(Values(t), Gradients(t));
        row.template MeasureColumns<Grid>(static_cast<int>(w), column_params_);
      }
    }
  }

  void FindColumnRanges(int start, int end) {
    const D d;
    for (int i = 0; i < dim_; i += kLanes) {
      auto low = hn::LoadU(d, Values(start) + i);
      auto high = low;
      for (int t = start + 1; t < end; ++t) {
        const auto v = hn::LoadU(d, Values(t) + i);
        low = hn::Min(low, v);
        high = hn::Max(high, v);
      }
      hn::Store(low, d, low_ + i);
      hn::Store(high, d, high_ + i);
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
  HWY_ALIGN float low_[kMaxDim];
  HWY_ALIGN float high_[kMaxDim];
  ColumnParams column_params_;
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
