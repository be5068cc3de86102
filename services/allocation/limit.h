#ifndef RATEQUANT_SERVICES_ALLOCATION_LIMIT_H_
#define RATEQUANT_SERVICES_ALLOCATION_LIMIT_H_

#include "ratequant/v1/bit_map.pb.h"
#include "services/allocation/cache_bytes.h"

namespace ratequant::allocation {

// A budget in the measure the solver sums over groups.
struct Limit {
  enum class Measure {
    kCodeBits,   // sum of widths
    kPageBytes,  // sum of page bytes
    kLoss,       // half the sum of E
  };
  Measure measure = Measure::kCodeBits;
  double amount = 0;
};

// `budget` has been checked. The amount may be negative when the fp16 part
// alone is above the budget. Thread-safe.
Limit MakeLimit(const v1::Budget& budget, int groups, const CacheBytes& bytes);

// The inverse for one amount: what budget, in the budget's own unit, it takes.
double BudgetFor(const v1::Budget& budget, double amount, int groups,
                 const CacheBytes& bytes);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_LIMIT_H_
