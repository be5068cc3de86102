#include "services/allocation/solver/knapsack.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/solver/hull.h"

namespace ratequant::allocation {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The oracle: dynamic programming over every integer cost. Returns the best
// value, infinity when nothing fits.
double Oracle(const Problem& problem) {
  const int budget = static_cast<int>(problem.budget);
  std::vector<double> best(budget + 1, kInfinity);
  best[0] = 0;
  for (const auto& choices : problem.groups) {
    std::vector<double> next(budget + 1, kInfinity);
    for (int spent = 0; spent <= budget; ++spent) {
      if (best[spent] == kInfinity) continue;
      for (const Choice& choice : choices) {
        const int cost = spent + static_cast<int>(choice.cost);
        if (cost <= budget) {
          next[cost] = std::min(next[cost], best[spent] + choice.value);
        }
      }
    }
    best = std::move(next);
  }
  return *std::min_element(best.begin(), best.end());
}

// By brute force, for problems whose costs are not integers.
double BruteForce(const Problem& problem, size_t g, double cost, double value) {
  if (cost > problem.budget) return kInfinity;
  if (g == problem.groups.size()) return value;
  double best = kInfinity;
  for (const Choice& choice : problem.groups[g]) {
    best = std::min(best, BruteForce(problem, g + 1, cost + choice.cost,
                                     value + choice.value));
  }
  return best;
}

void ExpectConsistent(const Problem& problem, const Solution& solution) {
  ASSERT_EQ(solution.choice.size(), problem.groups.size());
  double cost = 0, value = 0;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const Choice& choice = problem.groups[g].at(solution.choice[g]);
    cost += choice.cost;
    value += choice.value;
  }
  EXPECT_LE(cost, problem.budget);
  EXPECT_DOUBLE_EQ(cost, solution.cost);
  EXPECT_DOUBLE_EQ(value, solution.value);
}

// Solves, and compares with the oracle.
void ExpectOptimal(const Problem& problem) {
  const auto solution = SolveKnapsack(problem);
  ASSERT_TRUE(solution.has_value());
  ExpectConsistent(problem, *solution);
  EXPECT_EQ(solution->gap, 0);
  EXPECT_NEAR(solution->value, Oracle(problem), 1e-12 * solution->value);
}

// Groups with the curve w * 4^-b, one bit a step: strictly convex.
Problem ConvexProblem(std::mt19937* random, int groups, int lower, int upper) {
  std::lognormal_distribution<double> weight(0, 2);
  Problem problem;
  for (int g = 0; g < groups; ++g) {
    const double w = weight(*random);
    std::vector<Choice> choices;
    for (int b = lower; b <= upper; ++b) {
      choices.push_back({static_cast<double>(b), w * std::pow(4.0, -b)});
    }
    problem.groups.push_back(choices);
  }
  return problem;
}

// Anything: unsorted, not convex, not monotone, repeated costs.
Problem WildProblem(std::mt19937* random, int groups, int choices,
                    int max_cost) {
  std::uniform_int_distribution<int> cost(0, max_cost);
  std::lognormal_distribution<double> value(0, 1.5);
  Problem problem;
  for (int g = 0; g < groups; ++g) {
    std::vector<Choice> group;
    for (int j = 0; j < choices; ++j) {
      group.push_back({static_cast<double>(cost(*random)), value(*random)});
    }
    problem.groups.push_back(group);
  }
  return problem;
}

// Page bytes of four quantizers at eight widths; weights spread log-normally.
Problem ByteProblem(std::mt19937* random, int groups, double spread) {
  std::lognormal_distribution<double> weight(0, spread), noise(0, 0.2);
  Problem problem;
  for (int g = 0; g < groups; ++g) {
    const double w = weight(*random);
    std::vector<Choice> choices;
    for (int q = 0; q < 4; ++q) {
      const double overhead[] = {64, 256, 128, 64};
      for (int b = 1; b <= 8; ++b) {
        choices.push_back({256.0 * b + overhead[q],
                           w * std::pow(3.5 + 0.3 * q, -b) * noise(*random)});
      }
    }
    problem.groups.push_back(choices);
  }
  return problem;
}

TEST(HullTest, DropsWhatIsAboveALineOrNoBetter) {
  // (1, 8) (2, 7) (3, 2) (4, 2.5) (5, 1): the second lies above the line, the
  // fourth is worse than the third.
  EXPECT_THAT(LowerHull({{1, 8}, {2, 7}, {3, 2}, {4, 2.5}, {5, 1}}),
              ElementsAre(0, 2, 4));
  EXPECT_THAT(LowerHull({{5, 1}, {3, 2}, {1, 8}}), ElementsAre(2, 1, 0));
  EXPECT_THAT(LowerHull({{1, 3}, {2, 2}, {3, 1}}), ElementsAre(0, 1, 2));
  EXPECT_THAT(LowerHull({{1, 3}, {1, 2}, {1, 5}}), ElementsAre(1));
}

TEST(KnapsackTest, HandCase) {
  // Steps by gain per cost: group 1 (10 -> 4, 6), group 0 (8 -> 3, 5), group 1
  // (4 -> 1, 3), group 0 (3 -> 2, 1).
  Problem problem;
  problem.groups = {{{1, 8}, {2, 3}, {3, 2}}, {{1, 10}, {2, 4}, {3, 1}}};
  const std::pair<double, std::vector<int>> cases[] = {
      {2, {0, 0}}, {3, {0, 1}}, {4, {1, 1}},
      {5, {1, 2}}, {6, {2, 2}}, {99, {2, 2}}};
  for (const auto& [budget, choice] : cases) {
    problem.budget = budget;
    const auto solution = SolveKnapsack(problem);
    ASSERT_TRUE(solution.has_value());
    EXPECT_THAT(solution->choice, ElementsAreArray(choice)) << budget;
    EXPECT_EQ(solution->gap, 0);
  }
  problem.budget = 1;
  EXPECT_FALSE(SolveKnapsack(problem).has_value());
  EXPECT_EQ(LowestCost(problem), 2);
}

TEST(KnapsackTest, EqualGroupsShareTheBudgetInOrder) {
  Problem problem;
  problem.groups.assign(6, {{2, 16}, {3, 4}, {4, 1}});
  problem.budget = 15;  // three groups get one more bit
  EXPECT_THAT(SolveKnapsack(problem)->choice, ElementsAre(1, 1, 1, 0, 0, 0));
}

TEST(KnapsackTest, WhatIsLeftGoesToChoicesOffTheHullToo) {
  // The hull's only step (0 -> 4) doesn't fit; the point above the line does.
  Problem problem;
  problem.groups = {{{0, 10}, {2, 9}, {4, 0}}};
  problem.budget = 3;
  EXPECT_THAT(SolveKnapsack(problem)->choice, ElementsAre(1));
}

TEST(KnapsackTest, ALastStepIsExchangedWhenThatIsBetter) {
  // Greedy takes group 0 (6 per 4), then 1 unit idles; both others fit instead
  // and gain more.
  Problem problem;
  problem.groups = {{{0, 6}, {4, 0}}, {{0, 3.5}, {3, 0}}, {{0, 2.9}, {2, 0}}};
  problem.budget = 5;
  const auto solution = SolveKnapsack(problem);
  EXPECT_THAT(solution->choice, ElementsAre(0, 1, 1));
  EXPECT_EQ(solution->gap, 0);
}

TEST(KnapsackTest, AGroupThatGainsNothingStaysCheap) {
  Problem problem;
  problem.groups = {{{1, 0}, {2, 0}}, {{1, 5}, {2, 1}}};
  problem.budget = 4;
  EXPECT_THAT(SolveKnapsack(problem)->choice, ElementsAre(0, 1));
}

TEST(KnapsackTest, ConvexCurvesAreSolvedExactly) {
  std::mt19937 random(1);
  for (int instance = 0; instance < 2000; ++instance) {
    const int groups = 2 + instance % 23;
    Problem problem = ConvexProblem(&random, groups, 1, 8);
    problem.budget = groups + static_cast<int>(random() % (7 * groups + 3));
    const auto solution = SolveKnapsack(problem);
    ASSERT_TRUE(solution.has_value());
    ExpectConsistent(problem, *solution);
    const double best = Oracle(problem);
    ASSERT_LE(solution->value, best * (1 + 1e-12)) << "instance " << instance;
    ASSERT_EQ(solution->gap, 0);
    // A budget within reach is spent to the last bit.
    ASSERT_EQ(solution->cost, std::min<double>(problem.budget, 8 * groups));
  }
}

TEST(KnapsackTest, AnyCurvesAreSolvedExactly) {
  std::mt19937 random(2);
  for (int instance = 0; instance < 3000; ++instance) {
    const int groups = 1 + instance % 17;
    Problem problem =
        WildProblem(&random, groups, 1 + instance % 9, 5 + instance % 40);
    problem.budget = LowestCost(problem) + random() % (20 * groups);
    ExpectOptimal(problem);
  }
}

// Values over the whole range of a double, some zero, some repeated, costs
// shared by all groups as bits or bytes are.
TEST(KnapsackTest, HugeRangesZerosAndTiesAreSolvedExactly) {
  std::mt19937 random(6);
  const auto pick = [&random](int n) { return static_cast<int>(random() % n); };
  for (int instance = 0; instance < 3000; ++instance) {
    const int groups = 1 + pick(25), widths = 2 + pick(12);
    const int step = 1 + pick(3) * 24;
    Problem problem;
    for (int g = 0; g < groups; ++g) {
      // One in four repeats the group before, one in eight weighs nothing.
      if (g > 0 && pick(4) == 0) {
        problem.groups.push_back(problem.groups.back());
        continue;
      }
      const double weight =
          pick(8) == 0 ? 0 : std::pow(10.0, pick(601) - 300) / widths;
      std::vector<Choice> choices;
      for (int b = 0; b < widths; ++b) {
        const double noise = 1 + 0.1 * pick(1 + instance % 5);
        choices.push_back({static_cast<double>(b * step + pick(step)),
                           weight * std::pow(4.0, -b) * noise});
      }
      problem.groups.push_back(choices);
    }
    problem.budget = LowestCost(problem) + pick(widths * step * groups);
    ExpectOptimal(problem);
  }
}

// Page bytes of four quantizers at eight widths, as many groups as a model has.
TEST(KnapsackTest, ByteProblemsAcrossQuantizersAreSolvedExactly) {
  std::mt19937 random(7);
  for (int instance = 0; instance < 24; ++instance) {
    const int groups = 20 + 10 * (instance % 6);
    Problem problem = ByteProblem(&random, groups, instance % 2 == 0 ? 2 : 0);
    problem.budget =
        std::floor(LowestCost(problem) * (1.05 + 0.2 * (instance % 12)));
    ExpectOptimal(problem);
  }
}

TEST(KnapsackTest, RealValuedCostsAreSolvedExactlyToo) {
  std::mt19937 random(3);
  std::lognormal_distribution<double> positive(0, 1);
  for (int instance = 0; instance < 1000; ++instance) {
    Problem problem = WildProblem(&random, 6, 4, 30);
    for (auto& group : problem.groups) {
      for (Choice& choice : group) choice.cost = positive(random);
    }
    problem.budget = LowestCost(problem) + positive(random);
    const auto solution = SolveKnapsack(problem);
    ASSERT_TRUE(solution.has_value());
    ExpectConsistent(problem, *solution);
    ASSERT_LE(solution->value, BruteForce(problem, 0, 0, 0) * (1 + 1e-12));
  }
}

// Value and cost nearly proportional over a billion costs leave nothing to
// prune by, so the search is cut short, and says so: no map, the planted one
// that meets the budget exactly included, is better by more than the gap.
TEST(KnapsackTest, ASearchThatIsCutShortBoundsWhatItMissed) {
  std::mt19937 random(8);
  int cut = 0;
  for (int instance = 0; instance < 12; ++instance) {
    Problem problem;
    double planted = 0;
    for (int g = 0; g < 60; ++g) {
      const double cost = 1e9 + static_cast<double>(random() % 1000000000);
      const double value = 2e9 - cost - 1e3 * static_cast<double>(random() % 3);
      problem.groups.push_back({{0, 2e9}, {cost, value}});
      const bool in = random() % 5 < 2;
      problem.budget += in ? cost : 0;
      planted += in ? value : 2e9;
    }
    const auto solution = SolveKnapsack(problem);
    ASSERT_TRUE(solution.has_value());
    ExpectConsistent(problem, *solution);
    cut += solution->gap > 0 ? 1 : 0;
    EXPECT_LE(solution->value - solution->gap, planted * (1 + 1e-12));
    EXPECT_LT(solution->gap, 1e-6 * solution->value);
  }
  EXPECT_GT(cut, 6);
}

TEST(KnapsackTest, TheSameProblemGivesTheSameMap) {
  std::mt19937 random(5);
  Problem problem = WildProblem(&random, 200, 16, 300);
  problem.budget = LowestCost(problem) + 5000;
  const auto first = SolveKnapsack(problem);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(SolveKnapsack(problem)->choice, first->choice);
  }
}

}  // namespace
}  // namespace ratequant::allocation
