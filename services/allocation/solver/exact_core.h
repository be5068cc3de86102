#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_

#include "services/allocation/solver/knapsack.h"

namespace ratequant::allocation {

// Improves `solution`, where the greedy walk first met a step that didn't fit,
// to the optimum, or as near as a bounded effort takes it; sets `gap`.
//
// `slope` is that step's value per cost: the multiplier of the linear
// relaxation, at which every group of `solution` has the choice of least value
// + slope * cost. What another choice has more is its penalty, and a solution's
// penalties plus slope times what it leaves of the budget is its excess over
// the linear bound. Only choices whose penalty is below the excess of the best
// solution known can be part of a better one. They are tried group by group,
// those that shift cost at least penalty first, by dynamic programming over the
// cost; every state also is a solution, with the groups to come as they were,
// and one that the linear bound of the groups to come lifts above the best
// solution is dropped. So few groups are ever looked at.
void ImproveToOptimum(const Problem& problem, double slope, Solution* solution);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_
