// One row and its gradient, for a quantizer of the sweep to measure: the engine
// of SweepQuantizer on vectors. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_VECTOR_ROW_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_VECTOR_ROW_INL_H_
#undef RATEQUANT_KERNELS_CPU_VECTOR_ROW_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_VECTOR_ROW_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/quantize-inl.h"
#include "kernels/cpu/sweep_kernels.h"
#include "kernels/cpu/trellis_search-inl.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "ratequant/kv/bit_width.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

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

// Per channel, what a ColumnGrid has for one width.
struct ColumnParams {
  HWY_ALIGN float zero[kMaxDim];
  HWY_ALIGN float scale[kMaxDim];
  HWY_ALIGN float reciprocal[kMaxDim];
};

template <class D>
class VectorRow {
 public:
  using Vec = hn::Vec<D>;

  // Errors are added to `errors`. What is passed must outlive the row.
  VectorRow(const SweepPlan& plan, const SweepPlan::Quantizer& quantizer,
            Tensor tensor, WidthErrors& errors)
      : plan_(plan), quantizer_(quantizer), tensor_(tensor), errors_(errors) {}

  // Begins with the next row; x and y are [dim].
  HWY_INLINE void Reset(const float* x, const float* y) {
    x_ = values_ = x;
    y_ = y;
  }

  static HWY_INLINE Vec Set(float value) { return hn::Set(D(), value); }
  static HWY_INLINE Vec Round(Vec value, Vec low, Vec high) {
    return RoundBetween<D>(value, low, high);
  }
  static HWY_INLINE Vec CopySign(Vec magnitude, Vec sign) {
    return hn::CopySign(magnitude, sign);
  }

  Tensor tensor() const { return tensor_; }
  int dim() const { return plan_.dim; }
  int num_widths() const { return static_cast<int>(plan_.widths.size()); }
  int width(int w) const { return plan_.widths[w]; }

  HWY_INLINE ValueRange Range() const { return RangeOf(values_, dim()); }

  template <class Map>
  HWY_INLINE void Measure(int w, const Map& map) {
    const D d;
    RowErrors<D> errors(d);
    AddErrors(0, dim(), map, errors);
    errors_.AddRow(d, w, errors);
  }

  template <class Grid>
  HWY_INLINE void MeasureGroups(int channels) {
    // A group can be narrower than the widest vectors.
    if (channels % NumLanes(D()) == 0) {
      MeasureWholeGroups<Grid>(channels);
    } else {
      VectorRow<NarrowTag> narrow(plan_, quantizer_, tensor_, errors_);
      narrow.Reset(x_, y_);
      narrow.template MeasureWholeGroups<Grid>(channels);
    }
  }

  template <class Grid>
  HWY_INLINE void MeasureColumns(int w, const ColumnParams& params) {
    const D d;
    RowErrors<D> errors(d);
    for (int i = 0; i < dim(); i += kLanes) {
      const auto x = hn::LoadU(d, x_ + i);
      const GridParams<Vec> grid = {hn::Load(d, params.zero + i),
                                    hn::Load(d, params.scale + i),
                                    hn::Load(d, params.reciprocal + i)};
      errors.Add(Grid::template Decode<VectorRow>(x, grid, width(w)), x,
                 hn::LoadU(d, y_ + i));
    }
    errors_.AddRow(d, w, errors);
  }

  HWY_INLINE float SumOfSquares() {
    const D d;
    for (int i = 0; i < dim(); i += kLanes) {
      const auto v = hn::LoadU(d, values_ + i);
      hn::Store(hn::Mul(v, v), d, products_ + i);
    }
    return FoldSum(d, products_, dim());
  }

  HWY_INLINE void Rotate() {
    RotateRow(D(), x_, quantizer_.signs.data(), dim(), rotated_);
    values_ = rotated_;
  }

  template <class Map>
  HWY_INLINE void Decode(const Map& map) {
    const D d;
    for (int i = 0; i < dim(); i += kLanes) {
      hn::Store(map(hn::LoadU(d, values_ + i)), d, decoded_ + i);
    }
  }

  void DecodeByCodebook(int w, float factor) {
    const Codebook& codebook = *plan_.codebooks[w];
    switch (width(w)) {
      case 1:
        return DecodeByCodebook<1>(codebook, factor);
      case 2:
        return DecodeByCodebook<2>(codebook, factor);
      case 3:
        return DecodeByCodebook<3>(codebook, factor);
      case 4:
        return DecodeByCodebook<4>(codebook, factor);
      case 5:
        return DecodeByCodebook<5>(codebook, factor);
      case 6:
        return DecodeByCodebook<6>(codebook, factor);
      case 7:
        return DecodeByCodebook<7>(codebook, factor);
      case 8:
        return DecodeByCodebook<8>(codebook, factor);
    }
  }

  void DecodeByTrellis(int w, float factor) {
    const D d;
    const auto factors = hn::Set(d, factor);
    for (int i = 0; i < dim(); i += kLanes) {
      hn::Store(hn::Mul(hn::LoadU(d, values_ + i), factors), d, products_ + i);
    }
    const Codebook& codebook = *plan_.trellis_codebooks[w];
    trellis_.Code(products_, dim(), width(w), codebook.levels.data(), codes_,
                  levels_);
    for (int i = 0; i < dim(); ++i) decoded_[i] = codebook.units[levels_[i]];
  }

  HWY_INLINE float Dot() {
    const D d;
    for (int i = 0; i < dim(); i += kLanes) {
      hn::Store(hn::Mul(hn::LoadU(d, values_ + i), hn::Load(d, decoded_ + i)),
                d, products_ + i);
    }
    return FoldSum(d, products_, dim());
  }

  HWY_INLINE void Scale(float scale) {
    const D d;
    for (int i = 0; i < dim(); i += kLanes) {
      hn::Store(hn::Mul(hn::Load(d, decoded_ + i), hn::Set(d, scale)), d,
                decoded_ + i);
    }
  }

  HWY_INLINE void MeasureRotated(int w) {
    const D d;
    Hadamard(d, decoded_, dim());
    const auto norm = hn::Set(d, InverseSqrtOfDim(dim()));
    const float* const signs = quantizer_.signs.data();
    RowErrors<D> errors(d);
    for (int i = 0; i < dim(); i += kLanes) {
      const auto factor = hn::Mul(norm, hn::LoadU(d, signs + i));
      errors.Add(hn::Mul(hn::Load(d, decoded_ + i), factor),
                 hn::LoadU(d, x_ + i), hn::LoadU(d, y_ + i));
    }
    errors_.AddRow(d, w, errors);
  }

  // Channels are a multiple of the vector's lanes.
  template <class Grid>
  HWY_INLINE void MeasureWholeGroups(int channels) {
    const D d;
    ValueRange ranges[kMaxDim / 8];
    for (int g = 0; g * channels < dim(); ++g) {
      ranges[g] = RangeOf(x_ + g * channels, channels);
    }
    for (int w = 0; w < num_widths(); ++w) {
      RowErrors<D> errors(d);
      for (int g = 0; g * channels < dim(); ++g) {
        AddErrors(g * channels, channels,
                  GridMap<Grid, VectorRow>(ranges[g], width(w)), errors);
      }
      errors_.AddRow(d, w, errors);
    }
  }

 private:
  static constexpr int kLanes = NumLanes(D());

  static HWY_INLINE ValueRange RangeOf(const float* values, int count) {
    const kv::HWY_NAMESPACE::Range range =
        kv::HWY_NAMESPACE::RangeOf(D(), values, count);
    return {range.min, range.max};
  }

  template <class Map>
  HWY_INLINE void AddErrors(int first, int count, const Map& map,
                            RowErrors<D>& errors) const {
    const D d;
    for (int i = first; i < first + count; i += kLanes) {
      const auto x = hn::LoadU(d, x_ + i);
      errors.Add(map(x), x, hn::LoadU(d, y_ + i));
    }
  }

  template <int kWidth>
  HWY_INLINE void DecodeByCodebook(const Codebook& codebook, float factor) {
    const D d;
    const auto factors = hn::Set(d, factor);
    for (int i = 0; i < dim(); i += kLanes) {
      const auto code = CodesOfCoordinates<kWidth>(
          d, codebook, hn::Mul(hn::LoadU(d, values_ + i), factors));
      hn::Store(UnitsOfCodes<kWidth>(d, codebook, code), d, decoded_ + i);
    }
  }

  const SweepPlan& plan_;
  const SweepPlan::Quantizer& quantizer_;
  const Tensor tensor_;
  WidthErrors& errors_;
  const float* x_ = nullptr;
  const float* y_ = nullptr;
  const float* values_ = nullptr;  // x_ or rotated_
  HWY_ALIGN float rotated_[kMaxDim];
  HWY_ALIGN float decoded_[kMaxDim];
  HWY_ALIGN float products_[kMaxDim];
  uint8_t codes_[kMaxDim];
  uint8_t levels_[kMaxDim];
  TrellisCoder trellis_;
};

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_VECTOR_ROW_INL_H_
