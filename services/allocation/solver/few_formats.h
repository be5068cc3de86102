#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_FEW_FORMATS_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_FEW_FORMATS_H_

// The allocation problem where the groups of one layer may use only a few
// different formats (pairs of quantizer and width), for engines that compile or
// launch a kernel for each.

#include <optional>
#include <vector>

#include "services/allocation/solver/knapsack.h"

namespace ratequant::allocation {

struct FormatProblem {
  Problem problem;
  std::vector<std::vector<int>> format;  // [groups][choices], 0 or more
  std::vector<int> layer;                // [groups], 0 or more, never falling
  int most = 1;                          // formats that a layer may use
};

// The cheapest cost of each layer; infinite for one that can't do with so few
// formats. Thread-safe.
std::vector<double> LowestLayerCosts(const FormatProblem& problem);

// Solves. The constraint is kept exactly, layer by layer, while a multiplier
// prices the budget (Lagrangian relaxation): the best multiplier gives a lower
// bound and, for each layer, the sets of formats that can be part of a better
// solution than the best one known. What a layer can be with those is listed,
// and choosing among the lists is an ordinary allocation problem. Where a list
// gets too long, the best solution known is returned with the bound's gap.
// nullopt when the lowest costs are above the budget together. Thread-safe.
std::optional<Solution> SolveFewFormats(const FormatProblem& problem);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_FEW_FORMATS_H_
