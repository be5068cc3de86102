#ifndef RATEQUANT_SERVICES_ALLOCATION_GROUP_WIDTHS_H_
#define RATEQUANT_SERVICES_ALLOCATION_GROUP_WIDTHS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/model.pb.h"
#include "services/allocation/choice_table.h"

namespace ratequant::allocation {

// Rules a policy may have.
inline constexpr int kMaxRules = 4096;

// Whether a policy narrows the widths of single groups: allowed_widths,
// key_min_width, value_min_width or rules.
bool NarrowsGroups(const v1::Policy& policy);

// Checks those fields against the shape they apply to and sorts the repeated
// ones. INVALID_ARGUMENT: UNSUPPORTED_WIDTH for a width that isn't 1 to 8
// (in a rule: or 16),
// INVALID_POLICY for a layer or head there isn't, a rule without bounds or with
// crossed ones, something named twice, or too many rules. Thread-safe.
absl::Status CanonicalizeGroupBounds(const v1::ModelGeometry& geometry,
                                     v1::Policy* policy);

// The widths each group may have, in group order, as a set: bit w - 1 stands
// for width w, 16 (fp16) included, which no group has beside others. Empty when
// the policy doesn't narrow any. `bounds` are those of the quantizers in use,
// of which a set is left at least one width; with LAYER_WISE all heads of a
// layer and tensor have the same set. INVALID_POLICY names a group that is left
// none, and its bounds. Thread-safe.
absl::StatusOr<std::vector<uint16_t>> GroupWidths(
    const v1::Policy& policy, const v1::ModelGeometry& geometry,
    const std::vector<WidthBounds>& bounds);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_GROUP_WIDTHS_H_
