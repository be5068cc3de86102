#ifndef RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_
#define RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "services/allocation/choice_table.h"
#include "services/allocation/limit.h"
#include "services/allocation/solver/baselines.h"

namespace ratequant::allocation {

// The baseline map of one quantizer (the i-th of the choice table) whose widths
// sum to `total_bits`, from groups * lower to groups * upper; in a narrowed
// table each group then gets its nearest column, which it must have.
Assignment BaselineAt(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits);

// Page bytes of that map, without building it if the table isn't narrowed.
int64_t BaselineBytes(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits);

// The best baseline map within `limit`: for each quantizer the one with the
// most bits that fits (for a limit on loss the fewest that keep it; both found
// by bisection in a narrowed table, where they are the most or fewest up to the
// unevenness of the spread), then the quantizer with the least objective (for a
// limit on loss the fewest bytes); equals go to the first quantizer. nullopt
// when none fits. Thread-safe.
std::optional<Assignment> BestBaseline(const ChoiceTable& table,
                                       Baseline baseline, const Limit& limit);

// Whether every group can be in a column of the i-th quantizer, or in fp16.
bool Covers(const ChoiceTable& table, int i);

// The sum of widths that BestBaseline takes in a narrowed table: by bisection
// over what `fits`, below the range when not even its lowest does.
int64_t LargestNarrowedTotal(const ChoiceTable& table, int i,
                             const std::function<bool(int64_t)>& fits);

// The least amount, in the limit's own measure (see Limit), that some baseline
// map needs.
double LeastBaselineAmount(const ChoiceTable& table, Baseline baseline,
                           const Limit& limit);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BASELINE_MAP_H_
