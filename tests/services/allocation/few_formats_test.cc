#include "services/allocation/solver/few_formats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace ratequant::allocation {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int Formats(const FormatProblem& problem, const std::vector<int>& choice,
            int layer) {
  std::set<int> used;
  for (size_t g = 0; g < choice.size(); ++g) {
    if (problem.layer[g] == layer) used.insert(problem.format[g][choice[g]]);
  }
  return static_cast<int>(used.size());
}

// Every selection there is.
double BruteForce(const FormatProblem& problem, std::vector<int>* choice,
                  double cost = 0, double value = 0) {
  const size_t g = choice->size();
  if (cost > problem.problem.budget) return kInfinity;
  if (g > 0 && Formats(problem, *choice, problem.layer[g - 1]) > problem.most) {
    return kInfinity;
  }
  if (g == problem.problem.groups.size()) return value;
  double best = kInfinity;
  for (size_t j = 0; j < problem.problem.groups[g].size(); ++j) {
    const Choice& c = problem.problem.groups[g][j];
    choice->push_back(static_cast<int>(j));
    best = std::min(
        best, BruteForce(problem, choice, cost + c.cost, value + c.value));
    choice->pop_back();
  }
  return best;
}

// Quantizers of several widths; a group may lack some of the formats.
FormatProblem RandomProblem(std::mt19937* random, int layers, int groups,
                            int formats, double lacking) {
  std::lognormal_distribution<double> weight(0, 1.5), noise(0, 0.3);
  std::uniform_real_distribution<double> chance(0, 1);
  FormatProblem problem;
  for (int g = 0; g < layers * groups; ++g) {
    problem.layer.push_back(g / groups);
    std::vector<Choice>& choices = problem.problem.groups.emplace_back();
    std::vector<int>& ids = problem.format.emplace_back();
    const double w = weight(*random);
    for (int f = 0; f < formats; ++f) {
      if (chance(*random) < lacking && !(f + 1 == formats && ids.empty())) {
        continue;
      }
      const double bits = 1 + f / 2;
      choices.push_back(
          {bits * 16 + (f % 2 == 0 ? 3 : 7),
           w * std::pow(f % 2 == 0 ? 3.5 : 4.2, -bits) * noise(*random)});
      ids.push_back(f);
    }
  }
  return problem;
}

double Lowest(const FormatProblem& problem) {
  double sum = 0;
  for (double cost : LowestLayerCosts(problem)) sum += cost;
  return sum;
}

TEST(FewFormatsTest, SmallProblemsAreSolvedLikeBruteForce) {
  std::mt19937 random(1);
  int solved = 0, impossible = 0, constrained = 0;
  for (int instance = 0; instance < 600; ++instance) {
    FormatProblem problem =
        RandomProblem(&random, 1 + instance % 2, 3, 3 + instance % 3, 0.2);
    problem.most = 1 + instance % 3;
    const double lowest = Lowest(problem);
    problem.problem.budget = std::isfinite(lowest)
                                 ? lowest + static_cast<double>(random() % 60)
                                 : 1e9;
    std::vector<int> choice;
    const double best = BruteForce(problem, &choice);
    if (!std::isfinite(lowest)) {
      EXPECT_EQ(best, kInfinity);
      EXPECT_FALSE(SolveFewFormats(problem).has_value());
      ++impossible;
      continue;
    }
    ASSERT_LT(best, kInfinity);
    const auto solution = SolveFewFormats(problem);
    ASSERT_TRUE(solution.has_value());
    EXPECT_NEAR(solution->value, best, 1e-12 * best) << "instance " << instance;
    EXPECT_EQ(solution->gap, 0);
    EXPECT_LE(solution->cost, problem.problem.budget);
    for (int l = 0; l <= instance % 2; ++l) {
      EXPECT_LE(Formats(problem, solution->choice, l), problem.most);
    }
    constrained += SolveKnapsack(problem.problem)->value < best * (1 - 1e-9);
    ++solved;
    problem.problem.budget = lowest - 1;
    EXPECT_FALSE(SolveFewFormats(problem).has_value());
  }
  EXPECT_GT(solved, 400);
  EXPECT_GT(impossible, 10);
  EXPECT_GT(constrained, 150);
}

// As large as models are: proven, and between the map without the constraint
// and those with a stricter one.
TEST(FewFormatsTest, LargeProblemsAreProven) {
  std::mt19937 random(2);
  for (int instance = 0; instance < 4; ++instance) {
    FormatProblem problem = RandomProblem(&random, 30, 6, 16, 0);
    problem.problem.budget = std::floor(180 * 16 * (2.2 + 0.7 * instance));
    const double free = SolveKnapsack(problem.problem)->value;
    double stricter = kInfinity;
    for (int most = 1; most <= 4; ++most) {
      problem.most = most;
      const auto solution = SolveFewFormats(problem);
      ASSERT_TRUE(solution.has_value());
      EXPECT_EQ(solution->gap, 0);
      EXPECT_LE(solution->value, stricter * (1 + 1e-12));
      EXPECT_GE(solution->value, free * (1 - 1e-12));
      for (int l = 0; l < 30; ++l) {
        EXPECT_LE(Formats(problem, solution->choice, l), most);
      }
      stricter = solution->value;
    }
    // No layer has more than six groups: six formats are no constraint.
    problem.most = 6;
    EXPECT_NEAR(SolveFewFormats(problem)->value, free, 1e-12 * free);
  }
}

}  // namespace
}  // namespace ratequant::allocation
