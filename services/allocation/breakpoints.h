#ifndef RATEQUANT_SERVICES_ALLOCATION_BREAKPOINTS_H_
#define RATEQUANT_SERVICES_ALLOCATION_BREAKPOINTS_H_

#include <cstdint>
#include <vector>

#include "services/allocation/choice_table.h"

namespace ratequant::allocation {

// What a curve's maps cost.
enum class CurveCost {
  kPageBytes,  // sum of page bytes
  kCodeBits,   // sum of widths
  kNothing,    // 0: without pages no map weighs more than another
};

// A map on the curve, summed over groups.
struct Breakpoint {
  int64_t cost = 0;
  int64_t page_bytes = 0;
  int64_t code_bits = 0;
  double value = 0;
};

// The breakpoints as ratequant.v1.RateDistortionCurve defines them, cheapest
// first: cost rises and value falls strictly. Never empty. Thread-safe.
std::vector<Breakpoint> FindBreakpoints(const ChoiceTable& table,
                                        CurveCost cost, bool separate);

// At most `max_points` > 0 of `points`: the last one at or below each of as
// many costs evenly spaced from the first to the last, which are among them.
std::vector<Breakpoint> ThinBreakpoints(const std::vector<Breakpoint>& points,
                                        uint32_t max_points);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BREAKPOINTS_H_
