#ifndef RATEQUANT_KERNELS_REFERENCE_SCALAR_ROW_H_
#define RATEQUANT_KERNELS_REFERENCE_SCALAR_ROW_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/sweep/quantizer-inl.h"
#include "kernels/quantizers/trellis.h"
#include "kernels/quantizers/trellis_codebook.h"
#include "kernels/quantizers/turboquant.h"

namespace ratequant::kv {

// Sums of one quantizer's errors at one width, in double.
struct ErrorSums {
  double square = 0;      // of e^2
  double weighted = 0;    // of (y e)^2
  double projection = 0;  // of (sum over channels of y e)^2
};

// One row and its gradient, for a quantizer to measure: SweepQuantizer's
// engine, one float after the other.
class ScalarRow {
 public:
  using Vec = float;

  // `x` and `y` are [dim], `sums` [widths], added to; all must outlive the row.
  ScalarRow(const QuantizerSpec& spec, Tensor tensor,
            const std::vector<int>& widths, int dim, const float* x,
            const float* y, ErrorSums* sums)
      : spec_(spec),
        tensor_(tensor),
        widths_(widths),
        dim_(dim),
        x_(x),
        y_(y),
        sums_(sums),
        values_(x, x + dim),
        decoded_(dim) {}

  static float Set(float value) { return value; }
  static float Round(float value, float low, float high) {
    return RoundClamped(value, low, high);
  }
  static float CopySign(float magnitude, float sign) {
    return std::copysign(magnitude, sign);
  }

  Tensor tensor() const { return tensor_; }
  int dim() const { return dim_; }
  int num_widths() const { return static_cast<int>(widths_.size()); }
  int width(int w) const { return widths_[w]; }

  sweep::ValueRange Range() const { return RangeOf(0, dim_); }

  template <class Map>
  void Measure(int w, const Map& map) {
    for (int i = 0; i < dim_; ++i) decoded_[i] = map(x_[i]);
    AddErrors(w);
  }

  // decoded[i] = maps(i)(x[i]), where the maps depend on the channel.
  template <class Maps>
  void MeasureEach(int w, const Maps& maps) {
    for (int i = 0; i < dim_; ++i) decoded_[i] = maps(i)(x_[i]);
    AddErrors(w);
  }

  template <class Grid>
  void MeasureGroups(int channels) {
    for (int w = 0; w < num_widths(); ++w) {
      MeasureEach(w, [&](int i) {
        return sweep::GridMap<Grid, ScalarRow>(
            RangeOf(i / channels * channels, channels), width(w));
      });
    }
  }

  float SumOfSquares() const {
    std::vector<float> squares(values_);
    for (float& value : squares) value *= value;
    return FoldSum(squares.data(), dim_);
  }
  void Rotate() { kv::Rotate(Signs().data(), values_.data(), dim_); }

  template <class Map>
  void Decode(const Map& map) {
    for (int i = 0; i < dim_; ++i) decoded_[i] = map(values_[i]);
  }
  void DecodeByCodebook(int w, float factor) {
    const Codebook& codebook = GetCodebook(dim_, width(w));
    Decode([&](float value) {
      return codebook
          .units[CodebookCode(value * factor, codebook.thresholds.data(),
                              static_cast<int>(codebook.thresholds.size()))];
    });
  }
  void DecodeByTrellis(int w, float factor) {
    const Codebook& codebook = GetTrellisCodebook(dim_, width(w));
    std::vector<float> z(values_);
    for (float& value : z) value *= factor;
    std::vector<uint16_t> decisions(dim_);
    TrellisPath(z.data(), 1, dim_, width(w), codebook.levels.data(),
                decisions.data())
        .Find([&](int i, int, int level) {
          decoded_[i] = codebook.units[level];
        });
  }
  float Dot() const {
    std::vector<float> products(values_);
    for (int i = 0; i < dim_; ++i) products[i] *= decoded_[i];
    return FoldSum(products.data(), dim_);
  }
  void Scale(float scale) {
    for (float& value : decoded_) value *= scale;
  }
  void MeasureRotated(int w) {
    RotateBack(Signs().data(), decoded_.data(), dim_);
    AddErrors(w);
  }

 private:
  sweep::ValueRange RangeOf(int first, int count) const {
    const auto begin = values_.begin() + first;
    const auto [low, high] = std::minmax_element(begin, begin + count);
    return {*low, *high};
  }

  std::vector<float> Signs() const {
    std::vector<float> signs(dim_);
    for (int i = 0; i < dim_; ++i) signs[i] = RotationSign(spec_.seed, i);
    return signs;
  }

  void AddErrors(int w) {
    double projection = 0;
    for (int i = 0; i < dim_; ++i) {
      const double e = static_cast<double>(decoded_[i]) - x_[i];
      sums_[w].square += e * e;
      sums_[w].weighted += (y_[i] * e) * (y_[i] * e);
      projection += y_[i] * e;
    }
    sums_[w].projection += projection * projection;
  }

  const QuantizerSpec& spec_;
  const Tensor tensor_;
  const std::vector<int>& widths_;
  const int dim_;
  const float* const x_;
  const float* const y_;
  ErrorSums* const sums_;
  std::vector<float> values_;   // x, or x rotated
  std::vector<float> decoded_;  // of `values_`
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_SCALAR_ROW_H_
