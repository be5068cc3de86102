#include "services/allocation/planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/calibration_check.h"
#include "services/common/canonical.h"
#include "services/common/quantizers.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::CalibrationSpec;
using ::ratequant::testing::DefaultQuantizer;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;
using v1::Policy;
using v1::Quantizer;

v1::Calibration Calibrated(const CalibrationSpec& spec = {}) {
  v1::Calibration calibration = ratequant::testing::MakeCalibration(spec);
  calibration.set_name(CalibrationName("m", std::string(64, 'a')));
  return calibration;
}

v1::GetBitMapRequest EffectiveBits(double bits) {
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_effective_bits(bits);
  return request;
}

v1::GetBitMapRequest CodeBits(double bits, Quantizer::Kind kind) {
  v1::GetBitMapRequest request;
  request.mutable_budget()->set_code_bits(bits);
  *request.add_quantizers() = DefaultQuantizer(kind);
  return request;
}

absl::StatusOr<v1::BitMap> Plan(const v1::GetBitMapRequest& request,
                                const v1::Calibration& calibration) {
  const auto query = MakeQuery(request, calibration);
  if (!query.ok()) return query.status();
  return PlanBitMap(calibration, *query);
}

// The objective and the bytes of a map, counted here once more, by the
// definitions.
struct Recount {
  double c2 = 0;
  int64_t page_bytes = 0;
  int64_t code_bits = 0;
};

Recount Count(const v1::BitMap& map, const v1::Calibration& calibration) {
  Recount count;
  for (int g = 0; g < map.width_size(); ++g) {
    const Quantizer& q = map.quantizers(map.quantizer_index(g));
    for (const v1::DistortionTable& table : calibration.tables()) {
      if (CompareQuantizers(table.quantizer(), q) != 0) continue;
      const int w = static_cast<int>(map.width(g)) - 1;
      count.c2 += table.c2(g * 8 + w);
      count.page_bytes +=
          g % 2 == 0 ? table.key_page_bytes(w) : table.value_page_bytes(w);
    }
    count.code_bits += map.width(g);
  }
  return count;
}

int64_t SequenceBytes(int64_t page_bytes, int64_t page_tokens, int64_t tokens,
                      int64_t sinks, int64_t window, int64_t elements) {
  const int64_t packed = std::max<int64_t>(0, tokens - window);
  return (packed + page_tokens - 1) / page_tokens * page_bytes +
         std::min(tokens, sinks + window) * elements * 2;
}

void ExpectBytesCountedToTheByte(const v1::Calibration& calibration) {
  const int64_t page_tokens = calibration.tables(0).page_tokens();
  const int64_t elements = 16 * 64;
  for (uint32_t context : {33u, 64u, 1000u, 4096u, 131072u}) {
    for (uint32_t window : {0u, 32u, 100u}) {
      v1::GetBitMapRequest request;
      request.mutable_cache()->set_context_tokens(context);
      request.mutable_cache()->set_window(window);
      request.mutable_budget()->set_bytes_per_token(16 * 64 * 2 * 4.0);
      const auto map = Plan(request, calibration);
      ASSERT_TRUE(map.ok()) << map.status();
      const Recount count = Count(*map, calibration);
      EXPECT_EQ(map->cache().page_tokens(), page_tokens);
      const int64_t bytes = SequenceBytes(count.page_bytes, page_tokens,
                                          context, 4, window, elements);
      EXPECT_DOUBLE_EQ(map->bytes_per_token(),
                       static_cast<double>(bytes) / context);
      EXPECT_DOUBLE_EQ(map->effective_bits(),
                       8.0 * bytes / (static_cast<double>(context) * elements));
      EXPECT_DOUBLE_EQ(map->objective_value(), count.c2);
      EXPECT_DOUBLE_EQ(map->code_bits(), count.code_bits / 16.0);
    }
  }
}

TEST(PlannerTest, BytesAreCountedToTheByte) {
  ExpectBytesCountedToTheByte(Calibrated());
}

TEST(PlannerTest, BytesOfLargePagesAreCountedToTheByte) {
  std::vector<Quantizer> quantizers = ratequant::testing::AllQuantizers();
  quantizers.push_back(DefaultQuantizer(Quantizer::KIVI));
  quantizers.back().set_group_size(64);
  ExpectBytesCountedToTheByte(
      Calibrated({.page_tokens = 64, .quantizers = quantizers}));
}

TEST(PlannerTest, AnotherPageThanTheCalibrationsIsRefused) {
  const v1::Calibration calibration = Calibrated({.page_tokens = 64});
  v1::GetBitMapRequest request = EffectiveBits(3);
  request.mutable_cache()->set_page_tokens(32);
  const absl::Status status = MakeQuery(request, calibration).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "CALIBRATION_MISMATCH");
  EXPECT_EQ(std::string(status.message()),
            "cache.page_tokens is 32, but " + calibration.name() +
                " was measured with 64; ask for 64 or calibrate with 32");
}

TEST(PlannerTest, AByteBudgetIsKeptAndTheSameMapFitsItsOwnBytes) {
  const v1::Calibration calibration = Calibrated();
  for (double bits = 1.8; bits < 9; bits += 0.37) {
    const auto map = Plan(EffectiveBits(bits), calibration);
    ASSERT_TRUE(map.ok()) << bits << " " << map.status();
    EXPECT_LE(map->effective_bits(), bits);
    EXPECT_NEAR(map->budget_left(), bits - map->effective_bits(), 1e-12);
    // Its own bytes as the budget: the same groups; one byte less a worse map.
    v1::GetBitMapRequest exact;
    exact.mutable_budget()->set_bytes_per_token(map->bytes_per_token());
    const auto again = Plan(exact, calibration);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->objective_value(), map->objective_value());
    EXPECT_EQ(again->bytes_per_token(), map->bytes_per_token());
    exact.mutable_budget()->set_bytes_per_token(map->bytes_per_token() -
                                                1.0 / 4096);
    const auto less = Plan(exact, calibration);
    if (less.ok()) {
      EXPECT_LT(less->bytes_per_token(), map->bytes_per_token());
    }
  }
}

TEST(PlannerTest, MixingQuantizersIsAtLeastAsGoodAsEachAlone) {
  const v1::Calibration calibration =
      Calibrated({.layers = 30, .kv_heads = 3, .seed = 7});
  for (double bits : {2.5, 3.0, 3.5, 4.0}) {
    const auto mixed = Plan(EffectiveBits(bits), calibration);
    ASSERT_TRUE(mixed.ok());
    for (const auto& table : calibration.tables()) {
      v1::GetBitMapRequest single = EffectiveBits(bits);
      *single.add_quantizers() = table.quantizer();
      const auto map = Plan(single, calibration);
      if (!map.ok()) continue;
      EXPECT_EQ(map->quantizers_size(), 1);
      EXPECT_LE(mixed->objective_value(), map->objective_value() * (1 + 1e-12));
    }
    EXPECT_LE(mixed->objective_value(), mixed->uniform_objective_value());
    EXPECT_LE(mixed->objective_value(),
              mixed->k_ceil_v_floor_objective_value());
  }
}

TEST(PlannerTest, OnlyQuantizersInUseAreListedInCanonicalOrder) {
  v1::Calibration calibration = Calibrated();
  // In the calibration in another order.
  calibration.mutable_tables()->SwapElements(0, 3);
  v1::GetBitMapRequest request = EffectiveBits(3.0);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  ASSERT_GE(map->quantizers_size(), 2);
  std::vector<bool> used(map->quantizers_size(), false);
  for (uint32_t index : map->quantizer_index()) used.at(index) = true;
  EXPECT_TRUE(std::all_of(used.begin(), used.end(), [](bool u) { return u; }));
  for (int i = 1; i < map->quantizers_size(); ++i) {
    EXPECT_LT(CompareQuantizers(map->quantizers(i - 1), map->quantizers(i)), 0);
  }
}

// All maps of a tiny calibration, by brute force.
double BestWithin(const v1::Calibration& calibration, int64_t page_bytes,
                  int g = 0, double value = 0) {
  if (page_bytes < 0) return std::numeric_limits<double>::infinity();
  if (g == calibration.groups_size()) return value;
  double best = std::numeric_limits<double>::infinity();
  for (const auto& table : calibration.tables()) {
    const int lower = table.quantizer().kind() == Quantizer::TURBOQUANT ? 1 : 2;
    for (int w = lower; w <= 8; ++w) {
      const int64_t bytes = g % 2 == 0 ? table.key_page_bytes(w - 1)
                                       : table.value_page_bytes(w - 1);
      best = std::min(best, BestWithin(calibration, page_bytes - bytes, g + 1,
                                       value + table.c2(g * 8 + w - 1)));
    }
  }
  return best;
}

TEST(PlannerTest, TinyByteBudgetsAreOptimal) {
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    const v1::Calibration calibration =
        Calibrated({.layers = 2, .kv_heads = 1, .seed = seed});
    const auto map = Plan(EffectiveBits(2 + 0.3 * seed), calibration);
    ASSERT_TRUE(map.ok()) << map.status();
    // Page bytes that fit, by the definition of effective bits.
    const double bytes = (2 + 0.3 * seed) * 4096 * 4 * 64 / 8;
    const int64_t fit =
        static_cast<int64_t>((bytes - 36 * 4 * 64 * 2) / 127 + 1e-9);
    EXPECT_NEAR(map->objective_value(), BestWithin(calibration, fit),
                1e-12 * map->objective_value());
  }
}

TEST(PlannerTest, CodeBitsAreMetExactly) {
  const v1::Calibration calibration = Calibrated({.layers = 30, .kv_heads = 3});
  for (double bits : {2.0, 2.3, 2.5, 3.0, 3.5, 4.0, 7.9}) {
    for (auto strategy :
         {Policy::ALLOCATED, Policy::UNIFORM, Policy::K_CEIL_V_FLOOR}) {
      v1::GetBitMapRequest request = CodeBits(bits, Quantizer::KIVI);
      request.mutable_policy()->set_strategy(strategy);
      const auto map = Plan(request, calibration);
      ASSERT_TRUE(map.ok()) << map.status();
      EXPECT_EQ(std::accumulate(map->width().begin(), map->width().end(), 0),
                std::lround(bits * 180));
      EXPECT_NEAR(map->budget_left(), 0, 1e-12);
      EXPECT_GE(*std::min_element(map->width().begin(), map->width().end()),
                2u);
    }
  }
}

TEST(PlannerTest, SeparateBudgetsGiveKAndVTheSame) {
  const v1::Calibration calibration = Calibrated({.layers = 10, .kv_heads = 4});
  v1::GetBitMapRequest request = CodeBits(2.5, Quantizer::TURBOQUANT);
  request.mutable_policy()->set_separate_key_value(true);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok());
  int bits[2] = {0, 0};
  for (int g = 0; g < map->width_size(); ++g) bits[g % 2] += map->width(g);
  EXPECT_EQ(bits[0], 100);
  EXPECT_EQ(bits[1], 100);
  request.mutable_policy()->set_separate_key_value(false);
  EXPECT_LE(Plan(request, calibration)->objective_value(),
            map->objective_value());

  v1::GetBitMapRequest bytes = EffectiveBits(3.0);
  bytes.mutable_policy()->set_separate_key_value(true);
  const auto halves = Plan(bytes, calibration);
  ASSERT_TRUE(halves.ok());
  int64_t page[2] = {0, 0};
  for (int g = 0; g < halves->width_size(); ++g) {
    const Quantizer& q = halves->quantizers(halves->quantizer_index(g));
    for (const auto& table : calibration.tables()) {
      if (CompareQuantizers(table.quantizer(), q) != 0) continue;
      page[g % 2] += g % 2 == 0 ? table.key_page_bytes(halves->width(g) - 1)
                                : table.value_page_bytes(halves->width(g) - 1);
    }
  }
  // Half of the packed budget each.
  const double half = (3.0 * 4096 * 80 * 64 / 8 - 36 * 80 * 64 * 2) / 127 / 2;
  EXPECT_LE(page[0], half);
  EXPECT_LE(page[1], half);
  EXPECT_GT(page[0], half * 0.99);
  EXPECT_GT(page[1], half * 0.99);
}

TEST(PlannerTest, LayerWiseGivesAllHeadsOfALayerTheSame) {
  const v1::Calibration calibration = Calibrated({.layers = 6, .kv_heads = 4});
  v1::GetBitMapRequest request = EffectiveBits(3.0);
  request.mutable_policy()->set_strategy(Policy::LAYER_WISE);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok());
  for (int g = 0; g < map->width_size(); ++g) {
    const int first = g / 8 * 8 + g % 2;
    EXPECT_EQ(map->width(g), map->width(first));
    EXPECT_EQ(map->quantizer_index(g), map->quantizer_index(first));
  }
  EXPECT_LE(map->effective_bits(), 3.0);
  EXPECT_GE(map->objective_value(),
            Plan(EffectiveBits(3.0), calibration)->objective_value());
}

TEST(PlannerTest, DefaultWidthsStartAtTwoForMinMaxQuantizers) {
  const v1::Calibration calibration = Calibrated();
  for (auto kind : {Quantizer::RTN, Quantizer::KIVI, Quantizer::QUAROT}) {
    const auto map = Plan(CodeBits(2, kind), calibration);
    ASSERT_TRUE(map.ok());
    for (uint32_t width : map->width()) EXPECT_EQ(width, 2u);
    EXPECT_EQ(ErrorReason(Plan(CodeBits(1.5, kind), calibration).status()),
              "BUDGET_BELOW_MINIMUM");
  }
  const auto turbo = Plan(CodeBits(1, Quantizer::TURBOQUANT), calibration);
  ASSERT_TRUE(turbo.ok());
  for (uint32_t width : turbo->width()) EXPECT_EQ(width, 1u);
}

TEST(PlannerTest, WidthBoundsAreKept) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  v1::GetBitMapRequest request = EffectiveBits(4.2);
  request.mutable_policy()->set_min_width(3);
  request.mutable_policy()->set_max_width(4);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok());
  for (uint32_t width : map->width()) {
    EXPECT_GE(width, 3u);
    EXPECT_LE(width, 4u);
  }
  EXPECT_EQ(map->policy().min_width(), 3u);
  EXPECT_EQ(map->policy().max_width(), 4u);
}

TEST(PlannerTest, PolicyInTheMapHasItsDefaultsFilledIn) {
  const v1::Calibration calibration = Calibrated();
  const auto mixed = Plan(EffectiveBits(3), calibration);
  EXPECT_EQ(mixed->policy().objective(), Policy::LOSS_PROJECTED);
  EXPECT_EQ(mixed->policy().strategy(), Policy::ALLOCATED);
  // 2 for some, 1 for turboquant: no one number.
  EXPECT_EQ(mixed->policy().min_width(), 0u);
  EXPECT_EQ(mixed->policy().max_width(), 8u);
  EXPECT_EQ(mixed->cache().sink_tokens(), 4u);
  EXPECT_EQ(mixed->cache().window(), 32u);
  EXPECT_EQ(mixed->cache().context_tokens(), 4096u);
  EXPECT_EQ(mixed->cache().page_tokens(), 32u);
  EXPECT_EQ(
      Plan(CodeBits(3, Quantizer::KIVI), calibration)->policy().min_width(),
      2u);
}

TEST(PlannerTest, PaperBoundsFollowTheBudget) {
  const v1::Calibration calibration = Calibrated({.layers = 30, .kv_heads = 3});
  const std::tuple<double, uint32_t, uint32_t> cases[] = {
      {2.0, 1, 4}, {2.5, 2, 4}, {2.9, 2, 4}, {3.0, 2, 5}, {3.5, 3, 5},
      {4.0, 3, 6}, {4.7, 3, 6}, {5.0, 4, 7}, {6.0, 4, 8}};
  for (const auto& [bits, lower, upper] : cases) {
    v1::GetBitMapRequest request = CodeBits(bits, Quantizer::KIVI);
    request.mutable_policy()->set_objective(Policy::PAPER);
    const auto map = Plan(request, calibration);
    ASSERT_TRUE(map.ok()) << map.status();
    EXPECT_EQ(map->policy().min_width(), lower) << bits;
    EXPECT_EQ(map->policy().max_width(), upper) << bits;
    for (uint32_t width : map->width()) {
      EXPECT_GE(width, lower);
      EXPECT_LE(width, upper);
    }
  }
}

TEST(PlannerTest, PaperMinimisesCappedWeightsTimesThePooledCurve) {
  v1::Calibration calibration = Calibrated({.layers = 8});
  calibration.mutable_groups(5)->set_g2(1e6);  // beyond any cap
  v1::GetBitMapRequest request = CodeBits(3, Quantizer::QUAROT);
  request.mutable_policy()->set_objective(Policy::PAPER);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok());
  const v1::DistortionTable& table = calibration.tables(2);
  std::vector<double> weights;
  for (const auto& group : calibration.groups()) {
    weights.push_back(64 * group.g2());
  }
  const double cap =
      5 * std::accumulate(weights.begin(), weights.end(), 0.0) / weights.size();
  const auto value = [&](int g, int width) {
    const v1::CurveFit& fit = g % 2 == 0 ? table.key_fit() : table.value_fit();
    return std::min(weights[g], cap) * fit.alpha() *
           std::pow(fit.beta(), -width);
  };
  double sum = 0;
  for (int g = 0; g < map->width_size(); ++g) sum += value(g, map->width(g));
  EXPECT_NEAR(map->objective_value(), sum, 1e-12 * sum);
  // Marginal optimality within the bounds 2 to 5: no bit is better elsewhere.
  double best_gain = 0, least_loss = HUGE_VAL;
  for (int g = 0; g < map->width_size(); ++g) {
    const int width = map->width(g);
    if (width < 5)
      best_gain = std::max(best_gain, value(g, width) - value(g, width + 1));
    if (width > 2)
      least_loss = std::min(least_loss, value(g, width - 1) - value(g, width));
  }
  EXPECT_LE(best_gain, least_loss * (1 + 1e-12));
}

TEST(PlannerTest, AttentionOutputMinimisesD2) {
  v1::Calibration with_d2 = Calibrated();
  v1::Calibration as_c2 = with_d2;
  with_d2.mutable_capture()->set_attention_output(true);
  for (int t = 0; t < with_d2.tables_size(); ++t) {
    // Each group's curve is another group's c2.
    const int groups = with_d2.groups_size();
    for (int g = 0; g < groups; ++g) {
      for (int w = 0; w < 8; ++w) {
        const double d2 = with_d2.tables(t).c2((groups - 1 - g) * 8 + w);
        with_d2.mutable_tables(t)->add_d2(d2);
        as_c2.mutable_tables(t)->set_c2(g * 8 + w, d2);
      }
    }
  }
  v1::GetBitMapRequest request = EffectiveBits(3);
  const auto expected = Plan(request, as_c2);
  const auto by_c2 = Plan(request, with_d2);
  request.mutable_policy()->set_objective(v1::Policy::ATTENTION_OUTPUT);
  const auto map = Plan(request, with_d2);
  ASSERT_TRUE(map.ok() && expected.ok() && by_c2.ok()) << map.status();
  EXPECT_EQ(map->policy().objective(), v1::Policy::ATTENTION_OUTPUT);
  EXPECT_THAT(map->width(), ElementsAreArray(expected->width()));
  EXPECT_DOUBLE_EQ(map->objective_value(), expected->objective_value());
  EXPECT_THAT(map->width(), Not(ElementsAreArray(by_c2->width())));
}

TEST(PlannerTest, AttentionOutputNeedsACalibrationWithD2) {
  v1::GetBitMapRequest request = EffectiveBits(3);
  request.mutable_policy()->set_objective(v1::Policy::ATTENTION_OUTPUT);
  const absl::Status status = Plan(request, Calibrated()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "OBJECTIVE_NOT_CALIBRATED");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("calibrate with attention_output"));
}

TEST(PlannerTest, PaperTakesByteBudgetsToo) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  v1::GetBitMapRequest request = EffectiveBits(4.2);
  *request.add_quantizers() = DefaultQuantizer(Quantizer::KIVI);
  request.mutable_policy()->set_objective(Policy::PAPER);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_LE(map->effective_bits(), 4.2);
  // About 3 code bits fit: the entry of 3.
  EXPECT_EQ(map->policy().min_width(), 2u);
  EXPECT_LE(map->policy().max_width(), 5u);
}

TEST(PlannerTest, ContinuousWidthsAreTheorem2) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  v1::GetBitMapRequest request = CodeBits(4, Quantizer::TURBOQUANT);
  request.mutable_policy()->set_objective(Policy::PAPER);
  request.mutable_policy()->set_separate_key_value(true);
  request.mutable_policy()->set_include_continuous(true);
  request.mutable_policy()->set_min_width(1);
  request.mutable_policy()->set_max_width(8);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  ASSERT_EQ(map->continuous_width_size(), map->width_size());
  const v1::DistortionTable& table = calibration.tables(3);
  for (int tensor : {0, 1}) {
    const double beta =
        (tensor == 0 ? table.key_fit() : table.value_fit()).beta();
    std::vector<double> logs;
    double mean = 0, sum = 0, cap = 0;
    for (int g = tensor; g < map->width_size(); g += 2) {
      cap += 5 * calibration.groups(g).g2() / (map->width_size() / 2);
    }
    bool clipped = false;
    for (int g = tensor; g < map->width_size(); g += 2) {
      logs.push_back(std::log(std::min(calibration.groups(g).g2(), cap)));
      mean += logs.back() / (map->width_size() / 2);
      sum += map->continuous_width(g);
      clipped |= map->continuous_width(g) <= 1 || map->continuous_width(g) >= 8;
    }
    EXPECT_NEAR(sum, 4.0 * (map->width_size() / 2), 1e-9);
    if (clipped) continue;
    for (size_t i = 0; i < logs.size(); ++i) {
      EXPECT_NEAR(map->continuous_width(2 * i + tensor),
                  4 + (logs[i] - mean) / std::log(beta), 1e-9);
    }
  }
}

TEST(PlannerTest, ALossLimitGivesTheCheapestMapThatKeepsIt) {
  const v1::Calibration calibration = Calibrated({.layers = 30, .kv_heads = 3});
  double last_bytes = HUGE_VAL;
  for (double limit : {0.0005, 0.005, 0.05, 0.5}) {
    for (auto strategy : {Policy::UNIFORM, Policy::K_CEIL_V_FLOOR,
                          Policy::LAYER_WISE, Policy::ALLOCATED}) {
      v1::GetBitMapRequest request;
      request.mutable_budget()->set_max_loss_increase(limit);
      request.mutable_policy()->set_strategy(strategy);
      const auto map = Plan(request, calibration);
      ASSERT_TRUE(map.ok()) << map.status();
      EXPECT_LE(map->objective_value() / 2, limit * (1 + 1e-14));
      EXPECT_NEAR(map->budget_left(), limit - map->objective_value() / 2,
                  1e-12);
      if (strategy != Policy::ALLOCATED) continue;
      EXPECT_LT(map->bytes_per_token(), last_bytes);
      last_bytes = map->bytes_per_token();
      // A map of the same bytes can't be much better: nothing was wasted.
      v1::GetBitMapRequest bytes;
      bytes.mutable_budget()->set_bytes_per_token(map->bytes_per_token());
      EXPECT_GE(Plan(bytes, calibration)->objective_value(),
                map->objective_value() * 0.98);
    }
  }
}

TEST(PlannerTest, BelowTheMinimumTheNearestBudgetIsNamedAndWorks) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  for (auto strategy : {Policy::ALLOCATED, Policy::UNIFORM,
                        Policy::K_CEIL_V_FLOOR, Policy::LAYER_WISE}) {
    for (bool separate : {false, true}) {
      if (separate && strategy == Policy::K_CEIL_V_FLOOR) continue;
      std::vector<v1::GetBitMapRequest> requests = {
          EffectiveBits(0.5), CodeBits(1.2, Quantizer::KIVI), {}, {}};
      requests[2].mutable_budget()->set_bytes_per_token(10);
      requests[3].mutable_budget()->set_max_loss_increase(1e-9);
      for (v1::GetBitMapRequest& request : requests) {
        request.mutable_policy()->set_strategy(strategy);
        request.mutable_policy()->set_separate_key_value(separate);
        const absl::Status status = Plan(request, calibration).status();
        ASSERT_EQ(status.code(), absl::StatusCode::kOutOfRange) << status;
        ASSERT_EQ(ErrorReason(status), "BUDGET_BELOW_MINIMUM");
        const ErrorMetadata metadata = ErrorInfoMetadata(status);
        const double minimum = std::stod(metadata.at("minimum"));
        const std::string field = metadata.at("budget");
        v1::Budget* budget = request.mutable_budget();
        if (field == "code_bits") budget->set_code_bits(minimum);
        if (field == "effective_bits") budget->set_effective_bits(minimum);
        if (field == "bytes_per_token") budget->set_bytes_per_token(minimum);
        if (field == "max_loss_increase") {
          budget->set_max_loss_increase(minimum);
        }
        const auto map = Plan(request, calibration);
        EXPECT_TRUE(map.ok()) << field << " " << map.status();
      }
    }
  }
}

TEST(PlannerTest, AboveTheMaximumTheBestMapIsReturnedWithTheRestLeft) {
  const v1::Calibration calibration = Calibrated();
  const auto code = Plan(CodeBits(16, Quantizer::KIVI), calibration);
  ASSERT_TRUE(code.ok());
  EXPECT_EQ(code->code_bits(), 8);
  EXPECT_EQ(code->budget_left(), 8);
  const auto bits = Plan(EffectiveBits(16), calibration);
  ASSERT_TRUE(bits.ok());
  EXPECT_NEAR(bits->budget_left(), 16 - bits->effective_bits(), 1e-12);
  v1::GetBitMapRequest bytes;
  bytes.mutable_budget()->set_bytes_per_token(1e12);
  EXPECT_EQ(Plan(bytes, calibration)->objective_value(),
            bits->objective_value());
}

TEST(PlannerTest, AContextWithinTheWindowHasNoPackedBytes) {
  const v1::Calibration calibration = Calibrated();
  v1::GetBitMapRequest request = EffectiveBits(16);
  request.mutable_cache()->set_context_tokens(20);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->effective_bits(), 16);
  // Every map weighs the same: the best one.
  request.mutable_cache()->clear_context_tokens();
  EXPECT_EQ(map->objective_value(),
            Plan(request, calibration)->objective_value());
  request.mutable_budget()->set_effective_bits(4);
  request.mutable_cache()->set_context_tokens(20);
  const absl::Status status = Plan(request, calibration).status();
  EXPECT_EQ(ErrorReason(status), "BUDGET_BELOW_MINIMUM");
  EXPECT_EQ(ErrorInfoMetadata(status).at("minimum"), "16");
}

TEST(PlannerTest, UniformTakesTheBestQuantizerWithinTheSameBytes) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  v1::GetBitMapRequest request = EffectiveBits(3.4);
  request.mutable_policy()->set_strategy(Policy::UNIFORM);
  const auto map = Plan(request, calibration);
  ASSERT_TRUE(map.ok());
  EXPECT_EQ(map->quantizers_size(), 1);
  EXPECT_EQ(map->objective_value(), map->uniform_objective_value());
  for (const auto& table : calibration.tables()) {
    v1::GetBitMapRequest single = request;
    *single.add_quantizers() = table.quantizer();
    const auto other = Plan(single, calibration);
    if (other.ok()) {
      EXPECT_LE(map->objective_value(), other->objective_value());
    }
  }
  EXPECT_EQ(Plan(EffectiveBits(3.4), calibration)->uniform_objective_value(),
            map->objective_value());
}

TEST(PlannerTest, TheMapsNameIsTheDigestOfItsContent) {
  const v1::Calibration calibration = Calibrated();
  auto map = Plan(EffectiveBits(3), calibration);
  ASSERT_TRUE(map.ok());
  const std::string name = map->name();
  map->set_name("models/m");
  EXPECT_EQ(name, BitMapName("m", *CanonicalDigest(*map)));
}

TEST(PlannerTest, TheSameQuestionGivesTheSameBytes) {
  const v1::Calibration calibration = Calibrated({.layers = 30, .kv_heads = 3});
  v1::GetBitMapRequest all = EffectiveBits(3);
  const std::string bytes = Plan(all, calibration)->SerializeAsString();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Plan(all, calibration)->SerializeAsString(), bytes);
  }
  // Defaults spelled out, quantizers named in another order and twice.
  v1::GetBitMapRequest spelled = all;
  for (int i : {3, 1, 0, 2, 1}) {
    *spelled.add_quantizers() = calibration.tables(i).quantizer();
  }
  spelled.mutable_quantizers(1)->set_group_size(0);
  spelled.mutable_policy()->set_objective(Policy::LOSS_PROJECTED);
  spelled.mutable_policy()->set_strategy(Policy::ALLOCATED);
  spelled.mutable_cache()->set_window(32);
  spelled.mutable_cache()->set_sink_tokens(4);
  spelled.mutable_cache()->set_context_tokens(4096);
  spelled.mutable_cache()->set_page_tokens(32);
  EXPECT_EQ(Plan(spelled, calibration)->SerializeAsString(), bytes);
  EXPECT_EQ(*QueryKey(*MakeQuery(spelled, calibration), calibration),
            *QueryKey(*MakeQuery(all, calibration), calibration));
}

TEST(PlannerTest, AnAllZeroHeadCostsAsLittleAsPossible) {
  v1::Calibration calibration = Calibrated();
  v1::DistortionTable* table = calibration.mutable_tables(1);
  for (int w = 0; w < 8; ++w) table->set_c2(3 * 8 + w, 0);
  const auto map = Plan(CodeBits(4, Quantizer::KIVI), calibration);
  ASSERT_TRUE(map.ok());
  EXPECT_EQ(map->width(3), 2u);
}

}  // namespace
}  // namespace ratequant::allocation
