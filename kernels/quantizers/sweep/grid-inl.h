// Uniform grids over a range of values: the arithmetic of uniform.h on whatever
// an engine calculates with.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_GRID_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_GRID_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_GRID_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_GRID_INL_H_
#endif

#include "kernels/quantizers/sweep/target.h"
#include "kernels/quantizers/uniform.h"

RQ_SWEEP_BEGIN

// Smallest and largest of some values. A zero may have either sign.
struct ValueRange {
  float low;
  float high;
};

// A grid's parameters, those that it stores already rounded to fp16. V is float
// or a vector of floats.
template <class V>
struct GridParams {
  V zero;
  V scale;
  V reciprocal;  // ReciprocalOrZero(scale)
};

// zero + code * scale, for codes of `width` bits.
struct AsymmetricGrid {
  static RQ_SWEEP_INLINE GridParams<float> Make(ValueRange range, int width) {
    const float scale = AsymmetricScale(range.low, range.high, width);
    return {AsymmetricZero(range.low), scale, ReciprocalOrZero(scale)};
  }

  template <class Row>
  static RQ_SWEEP_INLINE typename Row::Vec Decode(
      typename Row::Vec x, const GridParams<typename Row::Vec>& grid,
      int width) {
    const auto code =
        Row::Round((x - grid.zero) * grid.reciprocal, Row::Set(0.0f),
                   Row::Set(static_cast<float>(MaxCode(width))));
    return grid.zero + code * grid.scale;
  }
};

// A map from values to decoded values: `Grid` over one range.
template <class Grid, class Row>
class GridMap {
 public:
  using Vec = typename Row::Vec;

  RQ_SWEEP_INLINE GridMap(ValueRange range, int width)
      : grid_(Grid::Make(range, width)), width_(width) {}

  RQ_SWEEP_INLINE Vec operator()(Vec x) const {
    return Grid::template Decode<Row>(
        x,
        {Row::Set(grid_.zero), Row::Set(grid_.scale),
         Row::Set(grid_.reciprocal)},
        width_);
  }

 private:
  GridParams<float> grid_;
  int width_;
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_GRID_INL_H_
