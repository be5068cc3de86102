// Whole queries against dynamic programming over everything a map may be: every
// objective, kind of budget and way to share it.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/planner.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using v1::Policy;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kPages = 127;  // (4096 - 32) / 32
constexpr int64_t kFp16Bytes = 36 * 64 * 2;

// What a group may be: cost in the oracle's unit, bits or 16 bytes of a page.
struct Option {
  int cost = 0;
  double value = 0;
};

// Least value for each total cost.
std::vector<double> Fronts(const std::vector<std::vector<Option>>& groups) {
  std::vector<double> best = {0};
  for (const auto& options : groups) {
    int most = 0;
    for (const Option& option : options) most = std::max(most, option.cost);
    std::vector<double> next(best.size() + static_cast<size_t>(most),
                             kInfinity);
    for (const Option& option : options) {
      for (size_t c = 0; c < best.size(); ++c) {
        double& to = next[c + static_cast<size_t>(option.cost)];
        to = std::min(to, best[c] + option.value);
      }
    }
    best.swap(next);
  }
  return best;
}

class Oracle {
 public:
  Oracle(const v1::Calibration& calibration, const v1::GetBitMapRequest& query)
      : calibration_(calibration), query_(query) {}

  // The least that can be minimised: the objective, or with a limit on loss the
  // page bytes. Infinite when no map keeps the budget.
  double Best() const {
    const bool separate = query_.policy().separate_key_value();
    double best = 0;
    for (int first = 0; first < (separate ? 2 : 1); ++first) {
      std::vector<std::vector<Option>> groups;
      for (int g = first; g < calibration_.groups_size();
           g += separate ? 2 : 1) {
        groups.push_back(Options(g));
      }
      best += Within(Fronts(groups), separate ? 0.5 : 1);
    }
    return best;
  }

 private:
  bool Bits() const { return query_.budget().has_code_bits(); }

  double Value(const v1::DistortionTable& table, int g, int width) const {
    switch (query_.policy().objective()) {
      case Policy::PAPER: {
        const auto& fit = g % 2 == 0 ? table.key_fit() : table.value_fit();
        return Weight(g) * fit.alpha() * std::pow(fit.beta(), -width);
      }
      case Policy::MEASURED:
        return calibration_.groups(g).g2() * table.mse(g * 8 + width - 1);
      default:
        return table.c2(g * 8 + width - 1);
    }
  }

  double Weight(int g) const {
    const int step = query_.policy().separate_key_value() ? 2 : 1;
    double sum = 0;
    int count = 0;
    for (int i = g % step; i < calibration_.groups_size(); i += step) {
      sum += calibration_.groups(i).g2() * 64;
      ++count;
    }
    return std::min(calibration_.groups(g).g2() * 64, 5 * sum / count);
  }

  std::vector<Option> Options(int g) const {
    std::vector<Option> options;
    for (const v1::DistortionTable& table : calibration_.tables()) {
      const Policy& policy = query_.policy();
      for (uint32_t w = policy.min_width(); w <= policy.max_width(); ++w) {
        const auto& bytes =
            g % 2 == 0 ? table.key_page_bytes() : table.value_page_bytes();
        const int i = static_cast<int>(w) - 1;
        options.push_back(
            {Bits() ? static_cast<int>(w) : static_cast<int>(bytes[i] / 16),
             Value(table, g, static_cast<int>(w))});
      }
    }
    return options;
  }

  // The best within `share` of the budget.
  double Within(const std::vector<double>& fronts, double share) const {
    const v1::Budget& budget = query_.budget();
    const double groups = calibration_.groups_size();
    if (budget.has_max_loss_increase()) {
      const double limit = 2 * budget.max_loss_increase() * share;
      for (size_t c = 0; c < fronts.size(); ++c) {
        if (fronts[c] <= limit) return 16.0 * static_cast<double>(c);
      }
      return kInfinity;
    }
    double most = 0;
    if (Bits()) {
      most = std::floor(std::floor(budget.code_bits() * groups + 1e-9) * share);
    } else {
      const double total = budget.has_effective_bits()
                               ? budget.effective_bits() * groups * 64 / 8
                               : budget.bytes_per_token();
      const double packed =
          std::floor((total * 4096 - groups * kFp16Bytes) / kPages + 1e-9);
      if (packed < 0) return kInfinity;
      most = std::floor(std::floor(packed * share) / 16);
    }
    double best = kInfinity;
    for (size_t c = 0; c < fronts.size() && static_cast<double>(c) <= most;
         ++c) {
      best = std::min(best, fronts[c]);
    }
    return best;
  }

  const v1::Calibration& calibration_;
  const v1::GetBitMapRequest& query_;
};

// Numbers that no measurement would give, but that are allowed: some groups
// weigh nothing, some the same, values over hundreds of orders of magnitude.
void MakeWild(std::mt19937* random, v1::Calibration* calibration) {
  for (auto& table : *calibration->mutable_tables()) {
    for (int g = 0; g < calibration->groups_size(); ++g) {
      const double scale =
          (*random)() % 6 == 0
              ? 0
              : std::pow(10.0, static_cast<int>((*random)() % 601) - 300);
      for (int w = 0; w < 8; ++w) {
        const int cell = g * 8 + w;
        // Not convex, not even falling.
        const double noise = 1 + static_cast<double>((*random)() % 100) / 10;
        table.set_c2(cell, scale * std::pow(4.0, -w) * noise);
        if (g > 1 && g % 3 == 0) table.set_c2(cell, table.c2(cell - 16));
      }
    }
  }
}

v1::Budget RandomBudget(std::mt19937* random, int kind, int groups) {
  const double share = static_cast<double>((*random)() % 10000) / 10000;
  v1::Budget budget;
  switch (kind) {
    case 0:
      budget.set_code_bits(1.5 + 6.5 * share);
      break;
    case 1:
      budget.set_effective_bits(2 + 7 * share);
      break;
    case 2:
      budget.set_bytes_per_token(groups * 8 * (2 + 7 * share));
      break;
    default:
      budget.set_max_loss_increase(std::pow(10.0, -5 + 6 * share));
      break;
  }
  return budget;
}

TEST(ExactnessTest, EveryObjectiveAndBudgetIsSolvedLikeTheOracle) {
  std::mt19937 random(11);
  int solved = 0, refused = 0;
  for (int round = 0; round < 4000; ++round) {
    const int kind = round % 4;
    v1::GetBitMapRequest request;
    Policy& policy = *request.mutable_policy();
    policy.set_objective(static_cast<Policy::Objective>(1 + round / 4 % 3));
    policy.set_separate_key_value(round / 12 % 2 == 1);
    const bool one = kind == 0 || policy.objective() == Policy::PAPER;
    testing::CalibrationSpec spec = {
        .layers = 2 + static_cast<uint32_t>(round % 5),
        .kv_heads = 1 + static_cast<uint32_t>(round % 3),
        .seed = static_cast<uint32_t>(round / 7 + 1)};
    if (one) spec.quantizers = {spec.quantizers[round % 4]};
    v1::Calibration calibration = testing::MakeCalibration(spec);
    calibration.set_name(CalibrationName("m", std::string(64, 'a')));
    if (round / 24 % 3 == 0) MakeWild(&random, &calibration);
    policy.set_min_width(1 + random() % 3);
    policy.set_max_width(policy.min_width() + random() % 6);
    const int groups = calibration.groups_size();
    *request.mutable_budget() = RandomBudget(&random, kind, groups);
    SCOPED_TRACE(request.ShortDebugString());
    SCOPED_TRACE(round);

    const double best = Oracle(calibration, request).Best();
    const auto query = MakeQuery(request, calibration);
    ASSERT_TRUE(query.ok()) << query.status();
    const auto map = PlanBitMap(calibration, *query);
    if (!map.ok()) {
      ASSERT_EQ(ErrorReason(map.status()), "BUDGET_BELOW_MINIMUM");
      ASSERT_EQ(best, kInfinity);
      ++refused;
      continue;
    }
    ASSERT_EQ(map->optimality_gap(), 0);
    ASSERT_GE(map->budget_left(), 0);
    double minimised = map->objective_value();
    if (kind == 3) {
      minimised = std::round(
          (map->bytes_per_token() * 4096 - double(groups) * kFp16Bytes) /
          kPages);
    }
    ASSERT_NEAR(minimised, best, 1e-11 * best);
    ++solved;
  }
  EXPECT_GT(solved, 2500);
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace ratequant::allocation
