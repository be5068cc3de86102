#include "services/allocation/solver/knapsack.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "services/allocation/solver/exact_core.h"
#include "services/allocation/solver/hull.h"

namespace ratequant::allocation {
namespace {

void Sum(const Problem& problem, Solution* solution) {
  solution->cost = 0;
  solution->value = 0;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const Choice& choice = problem.groups[g][solution->choice[g]];
    solution->cost += choice.cost;
    solution->value += choice.value;
  }
}

// Walks until nothing fits. Returns the slope of the first step that didn't
// fit; nullopt when all did, the solution is then the best there is.
std::optional<double> WalkWithinBudget(const Problem& problem,
                                       Solution* solution) {
  GreedyWalk walk(problem.groups);
  solution->choice = walk.Start();
  Sum(problem, solution);
  std::optional<double> slope;
  int last_group = -1, last_choice = -1;
  while (const std::optional<GreedyWalk::Step> step = walk.Peek()) {
    if (solution->cost + step->cost <= problem.budget) {
      solution->cost += step->cost;
      last_group = step->group;
      last_choice = solution->choice[last_group];
      solution->choice[last_group] = step->to;
      walk.Take();
    } else {
      if (!slope.has_value()) slope = step->slope;
      walk.Drop();
    }
  }
  // Summed in another order, costs that aren't integers can come out a rounding
  // above the budget.
  Sum(problem, solution);
  if (solution->cost > problem.budget && last_group >= 0) {
    const Choice& to = problem.groups[last_group][solution->choice[last_group]];
    const Choice& from = problem.groups[last_group][last_choice];
    if (!slope.has_value()) {
      slope = (from.value - to.value) / (to.cost - from.cost);
    }
    solution->choice[last_group] = last_choice;
    Sum(problem, solution);
  }
  return slope;
}

// Moves one group to the choice, on its hull or not, that gains most with what
// is left. False when none gains.
bool SpendOnce(const Problem& problem, Solution* solution) {
  const double left = problem.budget - solution->cost;
  double best_gain = 0;
  int best_group = -1, best_choice = -1;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const Choice& now = problem.groups[g][solution->choice[g]];
    for (size_t j = 0; j < problem.groups[g].size(); ++j) {
      const Choice& other = problem.groups[g][j];
      const double gain = now.value - other.value;
      if (gain > best_gain && other.cost - now.cost <= left) {
        best_gain = gain;
        best_group = static_cast<int>(g);
        best_choice = static_cast<int>(j);
      }
    }
  }
  if (best_group < 0) return false;
  const int before = std::exchange(solution->choice[best_group], best_choice);
  Sum(problem, solution);
  if (solution->cost <= problem.budget) return true;
  // A rounding above the budget.
  solution->choice[best_group] = before;
  Sum(problem, solution);
  return false;
}

}  // namespace

double LowestCost(const Problem& problem) {
  double lowest = 0;
  for (const auto& choices : problem.groups) {
    lowest += std::min_element(choices.begin(), choices.end(),
                               [](const Choice& a, const Choice& b) {
                                 return a.cost < b.cost;
                               })
                  ->cost;
  }
  return lowest;
}

std::optional<Solution> SolveKnapsack(const Problem& problem) {
  if (LowestCost(problem) > problem.budget) return std::nullopt;
  Solution solution;
  const std::optional<double> slope = WalkWithinBudget(problem, &solution);
  if (!slope.has_value()) {
    solution.optimal = true;
    return solution;
  }
  while (SpendOnce(problem, &solution)) {
  }
  ImproveToOptimum(problem, *slope, &solution);
  return solution;
}

}  // namespace ratequant::allocation
