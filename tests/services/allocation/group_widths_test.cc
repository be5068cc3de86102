// Policies that narrow the widths of single groups, against an oracle that
// knows their meaning and nothing of the solver.

#include "services/allocation/group_widths.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/curve.h"
#include "services/allocation/planner.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::CalibrationSpec;
using ::ratequant::testing::DefaultQuantizer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using v1::GroupRule;
using v1::Policy;
using v1::Quantizer;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

v1::Calibration Calibrated(const CalibrationSpec& spec) {
  v1::Calibration calibration = ratequant::testing::MakeCalibration(spec);
  calibration.set_name(CalibrationName("m", std::string(64, 'a')));
  return calibration;
}

absl::StatusOr<v1::BitMap> Plan(const v1::GetBitMapRequest& request,
                                const v1::Calibration& calibration) {
  const auto query = MakeQuery(request, calibration);
  if (!query.ok()) return query.status();
  return PlanBitMap(calibration, *query);
}

// The widths of one group, from `lower` to 8, by the definitions.
std::set<int> Allowed(const Policy& policy, uint32_t layer, uint32_t head,
                      int tensor, int lower) {
  std::set<int> widths;
  for (int w = lower; w <= 8; ++w) {
    const auto width = static_cast<uint32_t>(w);
    const auto& only = policy.allowed_widths();
    bool keep = only.empty() ||
                std::find(only.begin(), only.end(), width) != only.end();
    keep &= width >=
            (tensor == 0 ? policy.key_min_width() : policy.value_min_width());
    if (policy.max_width() != 0) keep &= width <= policy.max_width();
    for (const GroupRule& rule : policy.rules()) {
      if (rule.has_layer() && rule.layer() != layer) continue;
      if (rule.has_kv_head() && rule.kv_head() != head) continue;
      if (rule.tensor() == GroupRule::KEY && tensor != 0) continue;
      if (rule.tensor() == GroupRule::VALUE && tensor != 1) continue;
      keep &= width >= rule.min_width();
      if (rule.max_width() != 0) keep &= width <= rule.max_width();
    }
    if (keep) widths.insert(w);
  }
  return widths;
}

Policy RandomPolicy(std::mt19937* random, uint32_t layers, uint32_t heads) {
  const auto pick = [random](uint32_t n) -> uint32_t {
    return static_cast<uint32_t>((*random)() % n);
  };
  Policy policy;
  if (pick(2) == 0) {
    for (uint32_t w = 2; w <= 8; ++w) {
      if (pick(3) != 0) policy.add_allowed_widths(w);
    }
    std::shuffle(policy.mutable_allowed_widths()->begin(),
                 policy.mutable_allowed_widths()->end(), *random);
  }
  if (pick(3) == 0) policy.set_key_min_width(1 + pick(4));
  if (pick(3) == 0) policy.set_value_min_width(1 + pick(4));
  if (pick(4) == 0) policy.set_max_width(6 + pick(3));
  std::set<std::string> seen;
  for (uint32_t i = pick(5); i > 0; --i) {
    GroupRule rule;
    if (pick(2) == 0) rule.set_layer(pick(layers));
    if (pick(2) == 0) rule.set_kv_head(pick(heads));
    rule.set_tensor(static_cast<GroupRule::Tensor>(pick(3)));
    if (pick(2) == 0) rule.set_min_width(1 + pick(5));
    if (rule.min_width() == 0 || pick(2) == 0) {
      rule.set_max_width(std::max(rule.min_width(), 3 + pick(6)));
    }
    if (seen.insert(rule.SerializeAsString()).second) {
      *policy.add_rules() = rule;
    }
  }
  return policy;
}

struct OracleUnit {
  std::vector<int> groups;
  std::set<int> widths;
};

// The groups, or layer-wise the heads of a layer and tensor, and the widths all
// of them may have.
std::vector<OracleUnit> OracleUnits(const Policy& policy, uint32_t layers,
                                    uint32_t heads, bool layer_wise) {
  std::vector<OracleUnit> units;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (int tensor : {0, 1}) {
      for (uint32_t head = 0; head < heads; ++head) {
        const int g = static_cast<int>((layer * heads + head) * 2) + tensor;
        const std::set<int> widths = Allowed(policy, layer, head, tensor, 2);
        if (!layer_wise || head == 0) {
          units.push_back({{g}, widths});
          continue;
        }
        units.back().groups.push_back(g);
        std::set<int> both;
        std::set_intersection(
            widths.begin(), widths.end(), units.back().widths.begin(),
            units.back().widths.end(), std::inserter(both, both.begin()));
        units.back().widths = both;
      }
    }
  }
  return units;
}

// Least objective for every sum of widths, by dynamic programming.
std::vector<double> OracleValues(const std::vector<OracleUnit>& units,
                                 const v1::DistortionTable& table,
                                 int most_bits) {
  const size_t sums = static_cast<size_t>(most_bits) + 1;
  std::vector<double> best(sums, kInfinity);
  best[0] = 0;
  for (const OracleUnit& unit : units) {
    std::vector<double> next(sums, kInfinity);
    for (int w : unit.widths) {
      const int cost = w * static_cast<int>(unit.groups.size());
      double value = 0;
      for (int g : unit.groups) value += table.c2(g * 8 + w - 1);
      for (int b = cost; b <= most_bits; ++b) {
        next[b] = std::min(next[b], best[b - cost] + value);
      }
    }
    best.swap(next);
  }
  return best;
}

TEST(GroupWidthsTest, RandomPoliciesAreSolvedLikeTheOracle) {
  constexpr uint32_t kLayers = 4, kHeads = 3;
  constexpr int kGroups = kLayers * kHeads * 2;
  std::mt19937 random(20);
  int solved = 0, contradictory = 0, too_low = 0;
  for (int round = 0; round < 600; ++round) {
    const v1::Calibration calibration =
        Calibrated({.layers = kLayers,
                    .kv_heads = kHeads,
                    .quantizers = {DefaultQuantizer(Quantizer::KIVI)},
                    .seed = static_cast<uint32_t>(round % 20 + 1)});
    v1::GetBitMapRequest request;
    *request.mutable_policy() = RandomPolicy(&random, kLayers, kHeads);
    const int bits = 2 * kGroups + static_cast<int>(random() % (4 * kGroups));
    request.mutable_budget()->set_code_bits(static_cast<double>(bits) /
                                            kGroups);
    for (auto strategy : {Policy::ALLOCATED, Policy::LAYER_WISE,
                          Policy::UNIFORM, Policy::K_CEIL_V_FLOOR}) {
      request.mutable_policy()->set_strategy(strategy);
      SCOPED_TRACE(request.ShortDebugString());
      const bool layer_wise = strategy == Policy::LAYER_WISE;
      const auto units =
          OracleUnits(request.policy(), kLayers, kHeads, layer_wise);
      const auto map = Plan(request, calibration);
      if (std::any_of(units.begin(), units.end(), [](const OracleUnit& unit) {
            return unit.widths.empty();
          })) {
        ASSERT_EQ(ErrorReason(map.status()), "INVALID_POLICY");
        ++contradictory;
        continue;
      }
      const std::vector<double> best =
          OracleValues(units, calibration.tables(0), 8 * kGroups);
      const int least = static_cast<int>(
          std::find_if(best.begin(), best.end(),
                       [](double value) { return value < kInfinity; }) -
          best.begin());
      if (bits < least) {
        ASSERT_EQ(ErrorReason(map.status()), "BUDGET_BELOW_MINIMUM");
        const std::string minimum =
            ErrorInfoMetadata(map.status()).at("minimum");
        ASSERT_NEAR(std::stod(minimum), static_cast<double>(least) / kGroups,
                    1e-12);
        v1::GetBitMapRequest nearest = request;
        nearest.mutable_budget()->set_code_bits(std::stod(minimum));
        ASSERT_TRUE(Plan(nearest, calibration).ok());
        ++too_low;
        continue;
      }
      ASSERT_TRUE(map.ok()) << map.status();
      int spent = 0;
      for (const OracleUnit& unit : units) {
        for (int g : unit.groups) {
          ASSERT_EQ(unit.widths.count(static_cast<int>(map->width(g))), 1u);
          if (layer_wise) {
            ASSERT_EQ(map->width(g), map->width(unit.groups[0]));
          }
          spent += static_cast<int>(map->width(g));
        }
      }
      ASSERT_LE(spent, bits);
      const double optimum =
          *std::min_element(best.begin(), best.begin() + bits + 1);
      if (strategy == Policy::ALLOCATED || layer_wise) {
        ASSERT_NEAR(map->objective_value(), optimum, 1e-12 * optimum);
      } else {
        ASSERT_GE(map->objective_value(), optimum * (1 - 1e-12));
        ASSERT_EQ(strategy == Policy::UNIFORM
                      ? map->uniform_objective_value()
                      : map->k_ceil_v_floor_objective_value(),
                  map->objective_value());
      }
      ++solved;
    }
  }
  // Each kind of outcome was met often.
  EXPECT_GT(solved, 500);
  EXPECT_GT(contradictory, 50);
  EXPECT_GT(too_low, 50);
}

// Every map of a tiny calibration, by brute force.
double BestWithin(const v1::Calibration& calibration, const Policy& policy,
                  int64_t page_bytes, int g = 0, double value = 0) {
  if (page_bytes < 0) return kInfinity;
  if (g == calibration.groups_size()) return value;
  double best = kInfinity;
  for (const auto& table : calibration.tables()) {
    const int lower = table.quantizer().kind() == Quantizer::TURBOQUANT ? 1 : 2;
    for (int w : Allowed(policy, g / 2, 0, g % 2, lower)) {
      const int64_t bytes = g % 2 == 0 ? table.key_page_bytes(w - 1)
                                       : table.value_page_bytes(w - 1);
      best = std::min(best, BestWithin(calibration, policy, page_bytes - bytes,
                                       g + 1, value + table.c2(g * 8 + w - 1)));
    }
  }
  return best;
}

TEST(GroupWidthsTest, ByteBudgetsAcrossQuantizersAreOptimal) {
  std::mt19937 random(4);
  int solved = 0;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    const v1::Calibration calibration =
        Calibrated({.layers = 2, .kv_heads = 1, .seed = seed % 12 + 1});
    const double bits = 2.5 + 0.05 * seed;
    v1::GetBitMapRequest request;
    request.mutable_budget()->set_effective_bits(bits);
    *request.mutable_policy() = RandomPolicy(&random, 2, 1);
    SCOPED_TRACE(request.ShortDebugString());
    const int64_t fit = static_cast<int64_t>(
        (bits * 4096 * 4 * 64 / 8 - 36 * 4 * 64 * 2) / 127 + 1e-9);
    const double best = BestWithin(calibration, request.policy(), fit);
    const auto map = Plan(request, calibration);
    ASSERT_EQ(map.ok(), best < kInfinity) << map.status();
    if (!map.ok()) continue;
    EXPECT_NEAR(map->objective_value(), best, 1e-12 * best);
    EXPECT_LE(map->effective_bits(), bits);
    request.mutable_policy()->set_strategy(Policy::UNIFORM);
    const auto uniform = Plan(request, calibration);
    if (uniform.ok()) {
      EXPECT_LE(uniform->effective_bits(), bits);
      EXPECT_GE(uniform->objective_value(), best * (1 - 1e-12));
    }
    ++solved;
  }
  EXPECT_GT(solved, 20);
}

TEST(GroupWidthsTest, BaselinesSpendTheBudgetOnTheAllowedWidths) {
  const v1::Calibration calibration =
      Calibrated({.layers = 4,
                  .kv_heads = 2,
                  .quantizers = {DefaultQuantizer(Quantizer::KIVI)}});
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_code_bits(3);
  for (uint32_t w : {8, 2, 4}) request.mutable_policy()->add_allowed_widths(w);
  request.mutable_policy()->set_strategy(Policy::UNIFORM);
  const auto uniform = Plan(request, calibration);
  ASSERT_TRUE(uniform.ok()) << uniform.status();
  // Half at 2 and half at 4.
  EXPECT_EQ(uniform->code_bits(), 3);
  EXPECT_EQ(std::count(uniform->width().begin(), uniform->width().end(), 4), 8);
  EXPECT_EQ(std::count(uniform->width().begin(), uniform->width().end(), 2), 8);
  request.mutable_policy()->set_strategy(Policy::K_CEIL_V_FLOOR);
  const auto split = Plan(request, calibration);
  ASSERT_TRUE(split.ok()) << split.status();
  for (int g = 0; g < 16; ++g) EXPECT_EQ(split->width(g), g % 2 == 0 ? 4 : 2);
}

TEST(GroupWidthsTest, PaperKeepsItsTableOfBoundsToo) {
  const v1::Calibration calibration =
      Calibrated({.quantizers = {DefaultQuantizer(Quantizer::KIVI)}});
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_code_bits(3);
  request.mutable_policy()->set_objective(Policy::PAPER);
  GroupRule* rule = request.mutable_policy()->add_rules();
  rule->set_layer(1);
  rule->set_min_width(4);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  for (int g = 0; g < 16; ++g) {
    EXPECT_GE(map->width(g), g / 4 == 1 ? 4u : 2u);
    EXPECT_LE(map->width(g), 5u);
  }
  rule->set_min_width(6);
  const absl::Status status = Plan(request, calibration).status();
  EXPECT_EQ(ErrorReason(status), "INVALID_POLICY");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("leaves layer 1, KV head 0, K no width: at least 6 by "
                        "policy.rules, at most 5 by"));
}

TEST(GroupWidthsTest, ContradictionsNameTheGroupAndBothBounds) {
  const v1::Calibration calibration = Calibrated({});
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_effective_bits(4);
  request.mutable_policy()->set_value_min_width(5);
  GroupRule* rule = request.mutable_policy()->add_rules();
  rule->set_layer(2);
  rule->set_kv_head(1);
  rule->set_max_width(3);
  std::string message(Plan(request, calibration).status().message());
  EXPECT_THAT(message,
              HasSubstr("layer 2, KV head 1, V no width: at least 5 by "
                        "policy.value_min_width, at most 3 by policy.rules"));
  // The same for a whole curve.
  v1::GetRateDistortionCurveRequest curve;
  *curve.mutable_policy() = request.policy();
  EXPECT_EQ(
      ErrorReason(PlanCurve(calibration, *MakeQuery(curve, calibration), curve)
                      .status()),
      "INVALID_POLICY");
  request.mutable_policy()->clear_value_min_width();
  for (uint32_t w : {8, 4}) request.mutable_policy()->add_allowed_widths(w);
  message = std::string(Plan(request, calibration).status().message());
  EXPECT_THAT(message, HasSubstr("layer 2, KV head 1, K no width"));
  EXPECT_THAT(message, HasSubstr("only 4, 8 by policy.allowed_widths"));
  // Layers and heads that don't exist are named with the shape.
  rule->set_layer(4);
  message = std::string(Plan(request, calibration).status().message());
  EXPECT_THAT(message,
              HasSubstr("is 4; the model has 4 layers and 2 KV heads"));
}

// Layer 0 stays in fp16, at no loss and at the bytes of its rows; the others
// are solved as if it weren't there.
TEST(GroupWidthsTest, PinnedToFp16) {
  const v1::Calibration calibration = Calibrated({.layers = 3});
  const int heads = static_cast<int>(calibration.geometry().kv_heads());
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_effective_bits(9);
  request.mutable_policy()->set_max_width(4);
  request.mutable_policy()->add_allowed_widths(4);
  GroupRule* rule = request.mutable_policy()->add_rules();
  rule->set_layer(0);
  rule->set_min_width(16);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  double value = 0;
  int64_t bytes = 0;
  for (int g = 0; g < map->width_size(); ++g) {
    ASSERT_EQ(map->width(g), g < 2 * heads ? 16u : 4u);
    if (g < 2 * heads) {
      bytes += 32 * 64 * 2;
      continue;
    }
    const Quantizer& used = map->quantizers(map->quantizer_index(g));
    for (const auto& table : calibration.tables()) {
      if (table.quantizer().kind() != used.kind()) continue;
      value += table.c2(g * 8 + 3);
      bytes += g % 2 == 0 ? table.key_page_bytes(3) : table.value_page_bytes(3);
    }
  }
  EXPECT_DOUBLE_EQ(map->objective_value(), value);
  EXPECT_DOUBLE_EQ(map->bytes_per_token(), (127.0 * static_cast<double>(bytes) +
                                            36.0 * 64 * 2 * map->width_size()) /
                                               4096);
  EXPECT_GE(map->uniform_objective_value(), map->objective_value());
  // All of it in fp16: nothing is lost.
  rule->clear_layer();
  request.mutable_budget()->set_max_loss_increase(0);
  const auto all = Plan(request, calibration);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->objective_value(), 0);
  EXPECT_EQ(all->code_bits(), 16);
  EXPECT_NEAR(all->effective_bits(), 16, 0.02);
  EXPECT_EQ(all->quantizers_size(), 1);
  // Another rule for one of its groups contradicts it.
  rule = request.mutable_policy()->add_rules();
  rule->set_layer(1);
  rule->set_max_width(8);
  EXPECT_THAT(std::string(Plan(request, calibration).status().message()),
              HasSubstr("layer 1, KV head 0, K no width: at least 16 by "
                        "policy.rules, at most 8 by policy.rules"));
}

TEST(GroupWidthsTest, LayersKeepToTheirNumberOfFormats) {
  const v1::Calibration calibration = Calibrated({.layers = 6});
  v1::GetBitMapRequest request;
  request.mutable_policy()->add_rules()->set_layer(0);
  request.mutable_policy()->mutable_rules(0)->set_min_width(5);
  for (auto strategy : {Policy::ALLOCATED, Policy::LAYER_WISE}) {
    request.mutable_policy()->set_strategy(strategy);
    for (const double bits : {4.0, 5.0}) {
      request.mutable_budget()->set_effective_bits(bits);
      request.mutable_policy()->set_max_formats_per_layer(0);
      const double free = Plan(request, calibration)->objective_value();
      double stricter = kInfinity;
      for (uint32_t most = 1; most <= 4; ++most) {
        request.mutable_policy()->set_max_formats_per_layer(most);
        const auto map = Plan(request, calibration);
        ASSERT_TRUE(map.ok()) << map.status();
        EXPECT_EQ(map->optimality_gap(), 0);
        EXPECT_LE(map->effective_bits(), bits);
        EXPECT_GE(map->objective_value(), free * (1 - 1e-12));
        EXPECT_LE(map->objective_value(), stricter * (1 + 1e-12));
        stricter = map->objective_value();
        for (int layer = 0; layer < 6; ++layer) {
          std::set<std::pair<uint32_t, uint32_t>> formats;
          for (int g = 4 * layer; g < 4 * layer + 4; ++g) {
            formats.emplace(map->quantizer_index(g), map->width(g));
            EXPECT_GE(map->width(g), layer == 0 ? 5u : 1u);
          }
          EXPECT_LE(formats.size(), most);
        }
      }
    }
  }
}

TEST(GroupWidthsTest, FormatLimitsThatCannotBeKeptAreRefused) {
  const v1::Calibration calibration = Calibrated({});
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_effective_bits(6);
  Policy& policy = *request.mutable_policy();
  const auto message = [&] {
    const absl::Status status = Plan(request, calibration).status();
    EXPECT_EQ(ErrorReason(status), "INVALID_POLICY") << status;
    return std::string(status.message());
  };
  // K and V of layer 2 pinned to different widths.
  policy.set_max_formats_per_layer(1);
  for (const bool key : {true, false}) {
    GroupRule* rule = policy.add_rules();
    rule->set_layer(2);
    rule->set_tensor(key ? GroupRule::KEY : GroupRule::VALUE);
    rule->set_min_width(key ? 4 : 6);
    rule->set_max_width(rule->min_width());
  }
  EXPECT_THAT(message(), HasSubstr("is 1, with which layer 2"));
  policy.set_max_formats_per_layer(2);
  EXPECT_TRUE(Plan(request, calibration).ok());
  policy.set_max_formats_per_layer(5);
  EXPECT_THAT(message(), HasSubstr("is 5; use 1 to 4"));
  policy.set_max_formats_per_layer(2);
  policy.set_separate_key_value(true);
  EXPECT_THAT(message(), HasSubstr("separate_key_value"));
  policy.set_separate_key_value(false);
  policy.set_strategy(Policy::UNIFORM);
  EXPECT_THAT(message(), HasSubstr("ALLOCATED and LAYER_WISE"));
  policy.set_strategy(Policy::ALLOCATED);
  v1::GetRateDistortionCurveRequest curve;
  *curve.mutable_policy() = policy;
  EXPECT_EQ(ErrorReason(MakeQuery(curve, calibration).status()),
            "INVALID_POLICY");
  // Below the least that so few formats can do, the least is named and works.
  request.mutable_budget()->set_effective_bits(1);
  const absl::Status low = Plan(request, calibration).status();
  ASSERT_EQ(ErrorReason(low), "BUDGET_BELOW_MINIMUM");
  request.mutable_budget()->set_effective_bits(
      std::stod(ErrorInfoMetadata(low).at("minimum")));
  EXPECT_TRUE(Plan(request, calibration).ok());
}

TEST(GroupWidthsTest, OrderDoesNotMatterToKeyOrMap) {
  const v1::Calibration calibration = Calibrated({});
  v1::GetBitMapRequest a;
  a.mutable_budget()->set_effective_bits(4);
  for (uint32_t w : {2, 4, 8}) a.mutable_policy()->add_allowed_widths(w);
  a.mutable_policy()->add_rules()->set_max_width(4);
  a.mutable_policy()->mutable_rules(0)->set_kv_head(1);
  a.mutable_policy()->add_rules()->set_min_width(4);
  a.mutable_policy()->mutable_rules(1)->set_layer(0);
  v1::GetBitMapRequest b = a;
  std::reverse(b.mutable_policy()->mutable_allowed_widths()->begin(),
               b.mutable_policy()->mutable_allowed_widths()->end());
  b.mutable_policy()->mutable_rules()->SwapElements(0, 1);
  EXPECT_EQ(*QueryKey(*MakeQuery(a, calibration), calibration),
            *QueryKey(*MakeQuery(b, calibration), calibration));
  EXPECT_EQ(Plan(a, calibration)->name(), Plan(b, calibration)->name());
  EXPECT_THAT(Plan(b, calibration)->policy().allowed_widths(),
              ElementsAre(2, 4, 8));
  b.mutable_policy()->mutable_rules(0)->set_layer(1);
  EXPECT_NE(*QueryKey(*MakeQuery(a, calibration), calibration),
            *QueryKey(*MakeQuery(b, calibration), calibration));
}

TEST(GroupWidthsTest, CurvesKeepToThePolicyAndMatchTheirMaps) {
  const v1::Calibration calibration = Calibrated({});
  v1::GetBitMapRequest request;
  Policy* policy = request.mutable_policy();
  for (uint32_t w : {2, 4, 8}) policy->add_allowed_widths(w);
  policy->set_key_min_width(4);
  policy->add_rules()->set_layer(0);
  policy->mutable_rules(0)->set_min_width(8);
  v1::GetRateDistortionCurveRequest whole;
  *whole.mutable_policy() = *policy;
  const auto curve =
      PlanCurve(calibration, *MakeQuery(whole, calibration), whole);
  ASSERT_TRUE(curve.ok()) << curve.status();
  ASSERT_GT(curve->points_size(), 8);
  for (const auto& point : curve->points()) {
    request.mutable_budget()->set_bytes_per_token(point.bytes_per_token());
    const auto map = Plan(request, calibration);
    ASSERT_TRUE(map.ok()) << map.status();
    EXPECT_NEAR(map->objective_value(), point.objective_value(),
                1e-9 * point.objective_value());
    EXPECT_DOUBLE_EQ(map->uniform_objective_value(),
                     point.uniform_objective_value());
    EXPECT_DOUBLE_EQ(map->k_ceil_v_floor_objective_value(),
                     point.k_ceil_v_floor_objective_value());
  }
}

}  // namespace
}  // namespace ratequant::allocation
