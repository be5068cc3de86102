#ifndef RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_
#define RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_

#include <cstdint>
#include <optional>

#include "services/allocation/choice_table.h"
#include "services/allocation/limit.h"
#include "services/allocation/solver/baselines.h"

namespace ratequant::allocation {

// The baseline map of one quantizer (the i-th of the choice table) whose widths
// sum to `total_bits`, from groups * lower to groups * upper.
Assignment BaselineAt(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits);

// Page bytes of that map, without building it.
int64_t BaselineBytes(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits);

// The best baseline map within `limit`: for each quantizer the one with the
// most bits that fits (for a limit on loss the fewest that keep it), then the
// quantizer with the least objective (for a limit on loss the fewest bytes);
// equals go to the first quantizer. nullopt when none fits. Thread-safe.
std::optional<Assignment> BestBaseline(const ChoiceTable& table,
                                       Baseline baseline, const Limit& limit);

// The least amount, in the limit's own measure (see Limit), that some baseline
// map needs.
double LeastBaselineAmount(const ChoiceTable& table, Baseline baseline,
                           const Limit& limit);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_
