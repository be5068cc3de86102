// The whole curve at once, against the solver's answer to each budget.
#include "services/allocation/curve.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::CalibrationSpec;
using ::ratequant::testing::DefaultQuantizer;
using ::testing::HasSubstr;
using Request = v1::GetRateDistortionCurveRequest;

v1::Calibration Calibrated(const CalibrationSpec& spec = {}) {
  v1::Calibration calibration = ratequant::testing::MakeCalibration(spec);
  calibration.set_name(CalibrationName("m", std::string(64, 'a')));
  return calibration;
}

absl::StatusOr<v1::RateDistortionCurve> Curve(
    const v1::Calibration& calibration, const Request& request = {}) {
  const auto query = MakeQuery(request, calibration);
  if (!query.ok()) return query.status();
  return PlanCurve(calibration, *query, request);
}

// What GetBitMap answers when a point's cost is the budget.
absl::StatusOr<v1::BitMap> MapAt(const v1::RateDistortionPoint& point,
                                 const Request& curve,
                                 const v1::Calibration& calibration) {
  v1::GetBitMapRequest request;
  *request.mutable_quantizers() = curve.quantizers();
  *request.mutable_policy() = curve.policy();
  *request.mutable_cache() = curve.cache();
  if (curve.cost() == Request::CODE_BITS) {
    request.mutable_budget()->set_code_bits(point.code_bits());
  } else {
    request.mutable_budget()->set_bytes_per_token(point.bytes_per_token());
  }
  const auto query = MakeQuery(request, calibration);
  if (!query.ok()) return query.status();
  return PlanBitMap(calibration, *query);
}

double CostOf(const v1::RateDistortionPoint& point, const Request& curve) {
  return curve.cost() == Request::CODE_BITS ? point.code_bits()
                                            : point.bytes_per_token();
}

// Every breakpoint of the curve is a vertex, and the solver's own answer.
void ExpectTheSolversHull(const v1::Calibration& calibration,
                          const Request& request) {
  const auto curve = Curve(calibration, request);
  ASSERT_TRUE(curve.ok()) << curve.status();
  ASSERT_GT(curve->points_size(), 20);
  EXPECT_EQ(curve->breakpoints(), curve->points_size());
  double slope = HUGE_VAL;
  for (int i = 0; i < curve->points_size(); ++i) {
    const v1::RateDistortionPoint& point = curve->points(i);
    if (i > 0) {
      const v1::RateDistortionPoint& before = curve->points(i - 1);
      const double cost = CostOf(point, request) - CostOf(before, request);
      ASSERT_GT(cost, 0);
      const double now =
          (before.objective_value() - point.objective_value()) / cost;
      ASSERT_GT(now, 0);
      ASSERT_LT(now, slope * (1 + 1e-6));
      slope = now;
    }
    const auto map = MapAt(point, request, calibration);
    ASSERT_TRUE(map.ok()) << map.status();
    ASSERT_NEAR(map->objective_value(), point.objective_value(),
                1e-9 * point.objective_value());
    ASSERT_NEAR(map->uniform_objective_value(), point.uniform_objective_value(),
                1e-12 * point.uniform_objective_value());
    ASSERT_NEAR(map->k_ceil_v_floor_objective_value(),
                point.k_ceil_v_floor_objective_value(),
                1e-12 * point.k_ceil_v_floor_objective_value());
  }
}

TEST(CurveTest, EveryBreakpointInBytesIsTheSolversAnswer) {
  for (uint32_t seed : {1, 2, 3}) {
    ExpectTheSolversHull(Calibrated({.layers = 12, .seed = seed}), {});
  }
  Request request;
  request.mutable_policy()->set_objective(v1::Policy::MEASURED);
  request.mutable_policy()->set_max_width(6);
  request.mutable_cache()->set_context_tokens(777);
  ExpectTheSolversHull(Calibrated({.layers = 9, .kv_heads = 3}), request);
}

TEST(CurveTest, EveryBreakpointInCodeBitsIsTheSolversAnswer) {
  for (auto kind : {v1::Quantizer::KIVI, v1::Quantizer::TURBOQUANT}) {
    Request request;
    request.set_cost(Request::CODE_BITS);
    *request.add_quantizers() = DefaultQuantizer(kind);
    ExpectTheSolversHull(Calibrated({.layers = 12, .seed = 4}), request);
  }
}

TEST(CurveTest, EveryBreakpointUnderAPolicyIsTheSolversAnswer) {
  Request request;
  for (uint32_t width : {2, 4, 8}) {
    request.mutable_policy()->add_allowed_widths(width);
  }
  request.mutable_policy()->set_key_min_width(4);
  ExpectTheSolversHull(Calibrated({.layers = 12}), request);
}

TEST(CurveTest, LossAndGainsAreThoseOfTheObjectives) {
  const auto curve = Curve(Calibrated({.layers = 12}));
  ASSERT_TRUE(curve.ok());
  EXPECT_EQ(curve->geometry().layers(), 12u);
  EXPECT_EQ(curve->cache().context_tokens(), 4096u);
  EXPECT_EQ(curve->cache().window(), 32u);
  for (const auto& point : curve->points()) {
    EXPECT_EQ(point.loss_increase(), point.objective_value() / 2);
    EXPECT_EQ(point.sequence_bytes(),
              std::llround(point.bytes_per_token() * 4096));
    if (point.uniform_objective_value() > 0) {
      EXPECT_NEAR(
          point.objective_value(),
          (1 - point.gain_over_uniform()) * point.uniform_objective_value(),
          1e-12 * point.uniform_objective_value());
      EXPECT_GE(point.gain_over_uniform(), -1e-12);
      EXPECT_GE(point.gain_over_k_ceil_v_floor(), -1e-12);
    }
  }
  EXPECT_GT(curve->points(curve->points_size() / 2).gain_over_uniform(), 0.1);
}

TEST(CurveTest, MapsOnOneStraightEdgeAreOneBreakpoint) {
  // Two heads with the same tables move together.
  v1::Calibration calibration = Calibrated({.layers = 1, .kv_heads = 2});
  const auto one = Curve(calibration);
  for (auto& table : *calibration.mutable_tables()) {
    for (int i = 0; i < 16; ++i) table.set_c2(16 + i, table.c2(i));
  }
  const auto twins = Curve(calibration);
  ASSERT_TRUE(one.ok() && twins.ok());
  EXPECT_LT(twins->points_size(), one->points_size());
  for (int i = 1; i < twins->points_size(); ++i) {
    // Both at once: an even number of bits of each tensor.
    EXPECT_EQ(std::lround(twins->points(i).code_bits() * 4) % 2, 0) << i;
  }
}

TEST(CurveTest, IsThinnedEvenlyWithItsEndsAndSaysSo) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  Request request;
  const auto all = Curve(calibration, request);
  request.set_max_points(10);
  const auto few = Curve(calibration, request);
  ASSERT_TRUE(all.ok() && few.ok());
  ASSERT_LE(few->points_size(), 10);
  ASSERT_GE(few->points_size(), 8);
  EXPECT_EQ(few->breakpoints(), all->points_size());
  EXPECT_EQ(few->points(0).SerializeAsString(),
            all->points(0).SerializeAsString());
  EXPECT_EQ(few->points(few->points_size() - 1).SerializeAsString(),
            all->points(all->points_size() - 1).SerializeAsString());
  request.set_max_points(1);
  EXPECT_EQ(Curve(calibration, request)->points_size(), 1);
  request.set_max_points(4'000'000'000);
  EXPECT_EQ(Curve(calibration, request)->points_size(), all->points_size());
}

TEST(CurveTest, TheLargestModelsStayBelowGrpcsDefaultMessageLimit) {
  const auto curve =
      Curve(Calibrated({.layers = 128, .kv_heads = 32, .head_dim = 128}));
  ASSERT_TRUE(curve.ok()) << curve.status();
  EXPECT_GT(curve->breakpoints(), 1u << 15);
  EXPECT_LE(curve->points_size(), 1 << 15);
  EXPECT_GT(curve->points_size(), 1 << 14);
  EXPECT_LT(curve->ByteSizeLong(), size_t{4} << 20);
}

TEST(CurveTest, SeparateBudgetsLieAboveTheJointCurve) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  Request request;
  request.mutable_policy()->set_separate_key_value(true);
  const auto separate = Curve(calibration, request);
  ASSERT_TRUE(separate.ok());
  ASSERT_GT(separate->points_size(), 20);
  for (int i = 1; i < separate->points_size(); ++i) {
    const v1::RateDistortionPoint& point = separate->points(i);
    ASSERT_GE(point.bytes_per_token(),
              separate->points(i - 1).bytes_per_token());
    const auto joint = MapAt(point, {}, calibration);
    ASSERT_TRUE(joint.ok());
    ASSERT_GE(point.objective_value(), joint->objective_value() * (1 - 1e-9));
  }
}

TEST(CurveTest, ShorterThanTheWindowThereIsOneMap) {
  Request request;
  request.mutable_cache()->set_context_tokens(20);
  const auto curve = Curve(Calibrated(), request);
  ASSERT_TRUE(curve.ok());
  ASSERT_EQ(curve->points_size(), 1);
  EXPECT_EQ(curve->points(0).effective_bits(), 16);
}

TEST(CapacityTest, EveryPointSaysExactlyWhatFits) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  Request request;
  request.mutable_cache()->set_context_tokens(10'000);
  const auto all = Curve(calibration, request);
  ASSERT_TRUE(all.ok());
  const int64_t middle = all->points(all->points_size() / 2).sequence_bytes();
  const int64_t memory = 5 * middle + 4;
  request.mutable_capacity()->set_memory_bytes(memory);
  request.mutable_capacity()->set_sequences(5);
  const auto curve = Curve(calibration, request);
  ASSERT_TRUE(curve.ok()) << curve.status();
  // Those up to the one that was measured, and no more.
  EXPECT_EQ(curve->points_size(), all->points_size() / 2 + 1);
  EXPECT_EQ(curve->breakpoints(), curve->points_size());
  EXPECT_EQ(curve->points(curve->points_size() - 1).sequence_bytes(), middle);
  for (int i = 0; i < curve->points_size(); i += 13) {
    const v1::RateDistortionPoint& point = curve->points(i);
    EXPECT_LE(point.max_sequences() * point.sequence_bytes(), memory);
    EXPECT_GT((point.max_sequences() + 1) * point.sequence_bytes(), memory);
    // The same map at its longest context, and one token longer.
    const int64_t tokens = point.max_context_tokens();
    ASSERT_GE(tokens, 10'000);
    const auto bytes_at = [&](int64_t context) {
      Request longer;
      longer.mutable_cache()->set_context_tokens(context);
      return 5 * Curve(calibration, longer)->points(i).sequence_bytes();
    };
    EXPECT_LE(bytes_at(tokens), memory);
    EXPECT_GT(bytes_at(tokens + 1), memory);
  }
}

TEST(CapacityTest, WhenNothingFitsItSaysWhatWould) {
  const v1::Calibration calibration = Calibrated({.layers = 12});
  Request request;
  request.mutable_cache()->set_context_tokens(32'768);
  request.mutable_capacity()->set_memory_bytes(64 << 20);
  request.mutable_capacity()->set_sequences(64);
  const absl::Status status = Curve(calibration, request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ErrorReason(status), "NOTHING_FITS");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("64 sequences of 32768 tokens take "));
  const ErrorMetadata said = ErrorInfoMetadata(status);
  // Each of the three ways out works, and not by much.
  Request more = request;
  const int64_t needed = std::stoll(said.at("needed_bytes"));
  more.mutable_capacity()->set_memory_bytes(needed);
  EXPECT_TRUE(Curve(calibration, more).ok());
  more.mutable_capacity()->set_memory_bytes(needed - 1);
  EXPECT_FALSE(Curve(calibration, more).ok());
  Request fewer = request;
  const int sequences = std::stoi(said.at("max_sequences"));
  fewer.mutable_capacity()->set_sequences(sequences);
  EXPECT_TRUE(Curve(calibration, fewer).ok());
  fewer.mutable_capacity()->set_sequences(sequences + 1);
  EXPECT_FALSE(Curve(calibration, fewer).ok());
  Request shorter = request;
  const int tokens = std::stoi(said.at("max_context_tokens"));
  shorter.mutable_cache()->set_context_tokens(tokens);
  EXPECT_TRUE(Curve(calibration, shorter).ok());
  shorter.mutable_cache()->set_context_tokens(tokens + 1);
  EXPECT_FALSE(Curve(calibration, shorter).ok());
}

TEST(CapacityTest, HugeNumbersAreAnswered) {
  const v1::Calibration calibration = Calibrated();
  Request request;
  request.mutable_capacity()->set_memory_bytes(INT64_MAX);
  const auto curve = Curve(calibration, request);
  ASSERT_TRUE(curve.ok());
  EXPECT_EQ(curve->points(0).max_context_tokens(), 1 << 30);
  EXPECT_EQ(curve->points(0).max_sequences(),
            INT64_MAX / curve->points(0).sequence_bytes());
  request.mutable_capacity()->set_memory_bytes(1);
  request.mutable_capacity()->set_sequences(UINT32_MAX);
  request.mutable_cache()->set_context_tokens(1 << 30);
  const absl::Status status = Curve(calibration, request).status();
  EXPECT_EQ(ErrorReason(status), "NOTHING_FITS");
  EXPECT_EQ(ErrorInfoMetadata(status).at("max_context_tokens"), "0");
}

TEST(CurveErrorTest, WrongFieldsAreNamed) {
  const v1::Calibration calibration = Calibrated();
  Request negative;
  negative.mutable_capacity()->set_memory_bytes(-5);
  Request none;
  none.mutable_capacity()->set_sequences(3);
  Request cost;
  cost.set_cost(static_cast<Request::Cost>(9));
  Request several;
  several.set_cost(Request::CODE_BITS);
  const struct {
    Request request;
    const char *reason, *field;
  } cases[] = {
      {negative, "INVALID_CAPACITY", "capacity.memory_bytes"},
      {none, "INVALID_CAPACITY", "capacity.memory_bytes"},
      {cost, "INVALID_COST", "cost"},
      {several, "BUDGET_NEEDS_ONE_QUANTIZER", "cost"},
  };
  for (const auto& test : cases) {
    const absl::Status status = Curve(calibration, test.request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), test.reason);
    ASSERT_EQ(FieldViolations(status).size(), 1u) << status;
    EXPECT_EQ(FieldViolations(status)[0].field, test.field);
  }
}

}  // namespace
}  // namespace ratequant::allocation
