// The allocation solver: groups with four quantizers at eight widths each, as
// models have them, budgets in bytes. Every solution must be proven optimal.

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/allocation/solver/knapsack.h"
#include "tests/bench/bench.h"

namespace {

using ratequant::allocation::Choice;
using ratequant::allocation::LowestCost;
using ratequant::allocation::Problem;
using ratequant::allocation::SolveKnapsack;

constexpr int kGroups = 1152;  // 36 layers of 16 KV heads
constexpr double kGoalSeconds = 1e-3;

// Page bytes and noisy curves of rtn, kivi, quarot and turboquant; choices in
// the order of their bytes, which is how the planner gives them.
Problem MakeProblem(int groups, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> weight(0, 2), noise(0, 0.2);
  constexpr double kOverhead[] = {64, 64, 128, 256};
  constexpr double kBeta[] = {4.0, 3.7, 4.6, 4.6};
  Problem problem;
  for (int g = 0; g < groups; ++g) {
    const double w = weight(random);
    std::vector<Choice>& choices = problem.groups.emplace_back();
    for (int b = 1; b <= 8; ++b) {
      for (int q = 0; q < 4; ++q) {
        choices.push_back({256.0 * b + kOverhead[q],
                           w * std::pow(kBeta[q], -b) * noise(random)});
      }
    }
  }
  return problem;
}

// Median seconds over budgets from 2 to 5 bits.
double SolveSeconds(int groups, int budgets) {
  std::vector<double> seconds;
  for (int i = 0; i < budgets; ++i) {
    Problem problem = MakeProblem(groups, static_cast<uint32_t>(i + 1));
    problem.budget = std::floor(groups * 256 * (2 + 3.0 * i / budgets));
    double gap = 0;
    seconds.push_back(ratequant::bench::MedianSeconds(
        groups > 10000 ? 3 : 7, [&] { gap = SolveKnapsack(problem)->gap; }));
    if (gap != 0) return HUGE_VAL;  // not the exact optimum
  }
  return ratequant::bench::Quantile(seconds, 0.5);
}

}  // namespace

int main(int argc, char** argv) {
  const ratequant::bench::Options options =
      ratequant::bench::ParseOptions(argc, argv);
  ratequant::bench::PinThread(0);
  const int largest = options.quick ? 10000 : 100000;
  const double model = SolveSeconds(kGroups, 9);
  const double many = SolveSeconds(largest, 3);
  // What N log N growth from a model's size would take.
  const double allowed =
      model * largest * std::log2(largest) / (kGroups * std::log2(kGroups));
  ratequant::bench::Report(
      {.row = "solver",
       .measured = model * 1e3,
       .unit = "ms",
       .against = "exact integer optimum",
       .goal = "<= 1 ms for 1,152 groups; N log N to 100 k",
       .met = model <= kGoalSeconds && many <= allowed,
       .note = absl::StrFormat("%d groups: %.1f ms, %.2f of N log N", largest,
                               many * 1e3, many / allowed)});
  return 0;
}
