#include "services/allocation/width_bounds.h"

#include <algorithm>

#include "services/allocation/calibration_check.h"
#include "services/common/quantizers.h"

namespace ratequant::allocation {
namespace {

// The entry with the largest budget that isn't above the request's.
WidthBounds PaperBounds(double average) {
  if (average < 2.5) return {1, 4};
  if (average < 3) return {2, 4};
  if (average < 3.5) return {2, 5};
  if (average < 4) return {3, 5};
  if (average < 5) return {3, 6};
  if (average == 5) return {4, 7};
  return {4, kWidths};
}

}  // namespace

WidthBounds BoundsFor(const v1::Policy& policy, const v1::Quantizer& quantizer,
                      std::optional<double> average_code_bits) {
  WidthBounds bounds = {HasScale(quantizer.kind()) ? 1 : 2, kWidths};
  if (policy.objective() == v1::Policy::PAPER &&
      average_code_bits.has_value()) {
    bounds = PaperBounds(*average_code_bits);
  }
  const int lower = static_cast<int>(policy.min_width());
  const int upper = static_cast<int>(policy.max_width());
  if (lower != 0) bounds.lower = lower;
  if (upper != 0) bounds.upper = upper;
  if (upper == 0 && bounds.lower > bounds.upper) bounds.upper = kWidths;
  if (lower == 0) bounds.lower = std::min(bounds.lower, bounds.upper);
  return bounds;
}

}  // namespace ratequant::allocation
