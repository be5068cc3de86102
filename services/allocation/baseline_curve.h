#ifndef RATEQUANT_SERVICES_ALLOCATION_BASELINE_CURVE_H_
#define RATEQUANT_SERVICES_ALLOCATION_BASELINE_CURVE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "services/allocation/breakpoints.h"
#include "services/allocation/choice_table.h"
#include "services/allocation/solver/baselines.h"

namespace ratequant::allocation {

// The sums over all K and over all V groups when one quantizer's bits are
// spread evenly over them: what every baseline map is made of. Each is computed
// once, so that a whole curve costs little more than one map.
class EvenSums {
 public:
  // For the i-th of the choice table's quantizers. `table` must outlive it.
  EvenSums(const ChoiceTable& table, int i);

  // The sums of BaselineAt(table, i, baseline, total_bits); no `cost`.
  Breakpoint At(Baseline baseline, int64_t total_bits);

 private:
  struct Sums {
    bool computed = false;
    Breakpoint keys, values;
  };

  const Sums& Of(int64_t bits);

  const ChoiceTable& table_;
  const int i_;
  const int64_t lowest_;    // bits of all K, or of all V, groups
  std::vector<Sums> sums_;  // [bits - lowest_]
};

// One quantizer's maps of one baseline, walked from the fewest bits on. Not
// thread-safe.
class BaselineCurve {
 public:
  // `sums` are of `table` and `i`; both must outlive it.
  BaselineCurve(const ChoiceTable& table, int i, Baseline baseline,
                CurveCost cost, EvenSums* sums);

  // The objective of the map with the most bits that costs at most `cost`,
  // which may not fall from call to call; nullopt when none does.
  std::optional<double> ValueWithin(int64_t cost);

 private:
  int64_t CostOf(int64_t total_bits) const;
  std::optional<double> NarrowedValueWithin(int64_t cost);

  const ChoiceTable& table_;
  const int i_;
  const Baseline baseline_;
  const CurveCost cost_;
  EvenSums* const sums_;
  const bool covers_;
  const int64_t first_;
  const int64_t end_;
  int64_t next_;  // sum of widths of the first map that costs too much
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BASELINE_CURVE_H_
