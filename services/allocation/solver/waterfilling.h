#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_WATERFILLING_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_WATERFILLING_H_

#include <vector>

namespace ratequant::allocation {

// One group's exponential curve: value(b) = scale * beta^-b.
struct ExponentialCurve {
  double scale = 0;  // >= 0: weight times alpha
  double beta = 4;   // > 1
};

// Real-valued reverse waterfilling (paper Theorem 2): the widths b_g in
// [lower, upper] that minimise the sum of value_g(b_g) while they sum to
// `total`. Where all curves share beta and no bound is met this is
//   b_g = mean b + (ln scale_g - mean ln scale) / ln beta.
// With bounds, groups that meet one are fixed there and the rest is solved
// again, until nothing changes; with unlike betas the condition is that
// scale_g * ln beta_g * beta_g^-b_g, the marginal gain, is the same for all
// groups between their bounds. Solved exactly over the breakpoints of the
// multiplier, in O(n log n).
//
// Groups of scale 0 gain nothing and get `lower`, unless all others are at
// `upper`. `total` is taken into [n * lower, n * upper]. Thread-safe.
std::vector<double> FillWater(const std::vector<ExponentialCurve>& curves,
                              double total, double lower, double upper);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_WATERFILLING_H_
