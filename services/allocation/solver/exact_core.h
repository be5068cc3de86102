#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_

#include "services/allocation/solver/knapsack.h"

namespace ratequant::allocation {

// Improves `solution`, a feasible solution of `problem`, to the optimum, and
// sets `optimal` when it is proven.
//
// `slope` is the value per cost at which the greedy walk ran out of budget: the
// multiplier of the linear relaxation. Every choice has a penalty, what it
// loses against the group's best at that price; a map better than `solution`
// can only use choices whose penalty is below the gap between `solution` and
// the linear bound. That leaves a choice open in few groups, and dynamic
// programming over those, with the same bound, is exact. It stops widening at a
// fixed number of states, so that time stays bounded; `optimal` is then false.
void ImproveToOptimum(const Problem& problem, double slope, Solution* solution);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_EXACT_CORE_H_
