#ifndef RATEQUANT_SERVICES_ALLOCATION_WIDTH_BOUNDS_H_
#define RATEQUANT_SERVICES_ALLOCATION_WIDTH_BOUNDS_H_

#include <optional>

#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/quantizer.pb.h"
#include "services/allocation/choice_table.h"

namespace ratequant::allocation {

// The widths a policy allows for a quantizer.
//
// Defaults: from 2 bits for the min/max quantizers rtn, kivi and quarot, whose
// 1-bit code can destroy a layer, and from 1 for turboquant; up to 8. With
// objective PAPER and a known average of code bits the paper's table instead:
// below 2.5: 1 to 4; from 2.5: 2 to 4; 3: 2 to 5; 3.5: 3 to 5; 4: 3 to 6;
// 5: 4 to 7; above 5: 4 to 8. A bound the policy sets replaces the default, and
// moves the other default where they would cross. Thread-safe.
WidthBounds BoundsFor(const v1::Policy& policy, const v1::Quantizer& quantizer,
                      std::optional<double> average_code_bits);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_WIDTH_BOUNDS_H_
