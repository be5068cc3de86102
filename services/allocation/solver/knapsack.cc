#include "services/allocation/solver/knapsack.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include "services/allocation/solver/exact_core.h"
#include "services/allocation/solver/hull.h"

namespace ratequant::allocation {
namespace {

// An edge of a group's hull: the move from one of its points to the next.
struct Step {
  double slope = 0;  // value removed per cost
  double cost = 0;
  int group = 0;
  int to = 0;    // choice it leads to
  int from = 0;  // choice it comes from
  int index = 0;

  // The order of the greedy walk. Within a group slopes never rise, so a group
  // takes its steps from the first on.
  bool operator<(const Step& other) const {
    if (slope != other.slope) return slope > other.slope;
    return group != other.group ? group < other.group : index < other.index;
  }
};

void Sum(const Problem& problem, Solution* solution) {
  solution->cost = 0;
  solution->value = 0;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const Choice& choice = problem.groups[g][solution->choice[g]];
    solution->cost += choice.cost;
    solution->value += choice.value;
  }
}

// The steps of all groups, unordered; `start` is set to the cheapest points.
std::vector<Step> HullSteps(const Problem& problem, std::vector<int>* start) {
  HullBuilder builder;
  std::vector<Step> steps;
  steps.reserve(problem.groups.size() * 8);
  start->reserve(problem.groups.size());
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const std::vector<Choice>& choices = problem.groups[g];
    const std::vector<int>& hull = builder.Build(choices);
    start->push_back(hull[0]);
    // Rounding, or an infinite ratio, must not break the order of a group.
    double slope = std::numeric_limits<double>::max();
    for (size_t i = 1; i < hull.size(); ++i) {
      const Choice &from = choices[hull[i - 1]], &to = choices[hull[i]];
      const double cost = to.cost - from.cost;
      slope = std::min(slope, (from.value - to.value) / cost);
      steps.push_back({slope, cost, static_cast<int>(g), hull[i], hull[i - 1],
                       static_cast<int>(i)});
    }
  }
  return steps;
}

// How many steps of the greedy walk fit, by selection in linear time: that many
// come first in `steps` afterwards, and the one that doesn't fit follows.
size_t SelectSteps(double budget, std::vector<Step>* steps) {
  size_t low = 0, high = steps->size();
  const auto at = [steps](size_t i) {
    return steps->begin() + static_cast<std::ptrdiff_t>(i);
  };
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(at(low), at(middle), at(high));
    double cost = 0;
    for (size_t i = low; i <= middle; ++i) cost += (*steps)[i].cost;
    if (cost <= budget) {
      budget -= cost;
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Walks from the cheapest points until a step doesn't fit. Returns its slope;
// nullopt when all did, the solution is then the best there is.
std::optional<double> WalkWithinBudget(const Problem& problem,
                                       std::vector<Step> steps,
                                       Solution* solution) {
  size_t taken = SelectSteps(problem.budget - solution->cost, &steps);
  std::vector<int> furthest(problem.groups.size(), 0);
  for (size_t i = 0; i < taken; ++i) {
    const Step& step = steps[i];
    if (step.index <= furthest[step.group]) continue;
    furthest[step.group] = step.index;
    solution->choice[step.group] = step.to;
  }
  Sum(problem, solution);
  if (solution->cost > problem.budget) {
    // Costs that aren't integers come out above the budget by a rounding.
    std::sort(steps.begin(),
              steps.begin() + static_cast<std::ptrdiff_t>(taken));
    while (solution->cost > problem.budget && taken > 0) {
      const Step& step = steps[--taken];
      solution->choice[step.group] = step.from;
      Sum(problem, solution);
    }
  }
  if (taken == steps.size()) return std::nullopt;
  return steps[taken].slope;
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
  Solution solution;
  std::vector<Step> steps = HullSteps(problem, &solution.choice);
  Sum(problem, &solution);
  if (solution.cost > problem.budget) return std::nullopt;
  const std::optional<double> slope =
      WalkWithinBudget(problem, std::move(steps), &solution);
  if (slope.has_value()) ImproveToOptimum(problem, *slope, &solution);
  return solution;
}

}  // namespace ratequant::allocation
