#ifndef RATEQUANT_SERVICES_ALLOCATION_CONTINUOUS_H_
#define RATEQUANT_SERVICES_ALLOCATION_CONTINUOUS_H_

#include <vector>

#include "services/allocation/choice_table.h"
#include "services/allocation/objective.h"

namespace ratequant::allocation {

// The real-valued widths of Theorem 2 for one quantizer: reverse waterfilling
// over E_g(b) = scale_g * beta_t^-b, where beta_t is the slope of the mean of
// ln E over the tensor's groups at 2 to 6 bits and scale_g the group's own
// intercept. For PAPER these are its curves exactly. `average` is the mean
// width, of K and of V each when `separate`. Thread-safe.
std::vector<double> ContinuousWidths(const Objective& objective, int table,
                                     int groups, const WidthBounds& bounds,
                                     double average, bool separate);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_CONTINUOUS_H_
