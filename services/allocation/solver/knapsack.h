#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_KNAPSACK_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_KNAPSACK_H_

// The integer allocation problem: one choice for every group, so that the sum
// of values is smallest while the sum of costs stays within a budget (a
// multiple-choice knapsack). Reverse waterfilling over integers (paper
// Algorithm 2) is the case of convex groups whose steps all cost the same.
//
// No state, no clock, no randomness: the same problem gives the same solution
// on every machine. All functions are thread-safe.

#include <optional>
#include <vector>

namespace ratequant::allocation {

// What one group can be: `cost` >= 0 in the budget's unit, `value` >= 0 to be
// minimised. Both finite.
struct Choice {
  double cost = 0;
  double value = 0;
};

struct Problem {
  std::vector<std::vector<Choice>> groups;  // none of them empty
  double budget = 0;
};

struct Solution {
  std::vector<int> choice;  // [groups], index into the group's choices
  double cost = 0;
  double value = 0;
  // No solution has a value below value - gap (up to 1e-12 of the value). 0:
  // the solution is optimal; above, the search for better ones was cut short.
  double gap = 0;
};

// The cheapest total cost, summed in the order of the groups.
double LowestCost(const Problem& problem);

// Solves: greedy by slope over each group's lower convex hull, then an exact
// search over the few groups that the linear bound leaves open (see
// exact_core.h). Equal slopes go to the group that comes first. nullopt when
// even LowestCost is above the budget.
std::optional<Solution> SolveKnapsack(const Problem& problem);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_KNAPSACK_H_
