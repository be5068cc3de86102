#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/health_monitor.h"
#include "services/common/metrics.h"
#include "services/common/quantizers.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::CalibrationSpec;
using ::ratequant::testing::DefaultQuantizer;
using ::ratequant::testing::FailingDisk;
using ::ratequant::testing::MakeCalibration;
using ::testing::HasSubstr;
using v1::Policy;
using v1::Quantizer;

TEST_F(ServiceTest, ACalibrationIsStoredReadListedAndDeleted) {
  const v1::Calibration content = MakeCalibration();
  const auto created = Create("models/m", content);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_TRUE(created->has_create_time());
  const auto got = Get(created->name());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->SerializeAsString(), created->SerializeAsString());
  EXPECT_EQ(Get("models/m/calibrations/latest")->name(), created->name());
  v1::Calibration bare = *got;
  bare.clear_name();
  bare.clear_create_time();
  EXPECT_EQ(bare.SerializeAsString(), content.SerializeAsString());

  const auto listed = List("models/m");
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->calibrations_size(), 1);
  EXPECT_TRUE(listed->calibrations(0).groups().empty());
  const auto model = GetModel("models/m");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->latest_calibration(), created->name());
  EXPECT_EQ(model->geometry().layers(), 4u);
  EXPECT_EQ(ListModels()->models_size(), 1);

  EXPECT_TRUE(Delete(created->name()).ok());
  EXPECT_EQ(ListModels()->models_size(), 0);
  ExpectError(Get(created->name()).status(), kNotFound, "MODEL_NOT_FOUND");
}

TEST_F(ServiceTest, EverythingSurvivesARestart) {
  const auto created = Create("models/m", MakeCalibration());
  ASSERT_TRUE(created.ok()) << created.status();
  const auto map = GetBitMap(Request());
  ASSERT_TRUE(map.ok()) << map.status();
  Restart();
  EXPECT_EQ(Get(created->name())->SerializeAsString(),
            created->SerializeAsString());
  EXPECT_EQ(GetModel("models/m")->calibration_count(), 1u);
  EXPECT_EQ(GetBitMap(Request())->SerializeAsString(),
            map->SerializeAsString());
}

TEST_F(ServiceTest, SolvedRememberedAndStoredMapsAreTheSameBytes) {
  const auto created = Create("models/m", MakeCalibration());
  ASSERT_TRUE(created.ok());
  const std::string solved = GetBitMap(Request())->SerializeAsString();
  const std::string remembered = GetBitMap(Request())->SerializeAsString();
  Restart();
  const std::string stored = GetBitMap(Request())->SerializeAsString();
  // Deleting takes the stored map along: this one is solved again.
  ASSERT_TRUE(Delete(created->name()).ok());
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  Restart();
  const std::string again = GetBitMap(Request())->SerializeAsString();
  EXPECT_EQ(remembered, solved);
  EXPECT_EQ(stored, solved);
  EXPECT_EQ(again, solved);
}

TEST_F(ServiceTest, AKnownEtagIsAnsweredUnchanged) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  v1::GetBitMapRequest request = Request();
  const auto first = GetBitMap(request);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->bit_map().name(), "models/m/bitMaps/" + first->etag());
  request.set_known_etag(first->etag());
  const auto same = GetBitMap(request);
  ASSERT_TRUE(same.ok());
  EXPECT_TRUE(same->unchanged());
  EXPECT_EQ(same->etag(), first->etag());
  // A newer calibration is another answer.
  ASSERT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  const auto changed = GetBitMap(request);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(changed->has_bit_map());
  EXPECT_NE(changed->etag(), first->etag());
  // The old one by name still is what it was.
  request.set_calibration(first->bit_map().calibration());
  EXPECT_TRUE(GetBitMap(request)->unchanged());
}

TEST_F(ServiceTest, ADeletedCalibrationsMapsAreNotServed) {
  const auto created = Create("models/m", MakeCalibration());
  ASSERT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  v1::GetBitMapRequest request = Request();
  request.set_calibration(created->name());
  ASSERT_TRUE(GetBitMap(request).ok());
  ASSERT_TRUE(Delete(created->name()).ok());
  ExpectError(GetBitMap(request).status(), kNotFound, "CALIBRATION_NOT_FOUND");
}

TEST_F(ServiceTest, AnyAllowedQuantizerMayBeUsedUnlessSomeAreNamed) {
  ASSERT_TRUE(Create("models/m", MakeCalibration({.layers = 12})).ok());
  EXPECT_GE(GetBitMap(Request())->bit_map().quantizers_size(), 2);
  v1::GetBitMapRequest one = Request(4);
  one.add_quantizers()->set_kind(Quantizer::KIVI);
  const auto kivi = GetBitMap(one);
  ASSERT_TRUE(kivi.ok()) << kivi.status();
  ASSERT_EQ(kivi->bit_map().quantizers_size(), 1);
  EXPECT_EQ(QuantizerText(kivi->bit_map().quantizers(0)), "kivi");
  EXPECT_EQ(kivi->bit_map().quantizers(0).group_size(), 32u);
}

TEST_F(ServiceTest, MapsCarryTheMeansOfTheirCalibration) {
  v1::Calibration calibration = MakeCalibration();
  calibration.mutable_capture()->set_means_subtracted(true);
  calibration.mutable_means()->Resize(
      calibration.groups_size() *
          static_cast<int>(calibration.geometry().head_dim()),
      0.25f);
  calibration.set_means(5, -3.5f);
  ASSERT_TRUE(Create("models/m", calibration).ok());
  const auto map = GetBitMap(Request());
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_THAT(map->bit_map().means(),
              ::testing::ElementsAreArray(calibration.means()));
}

TEST_F(ServiceTest, TheCurveIsServed) {
  const auto created = Create("models/m", MakeCalibration());
  v1::GetRateDistortionCurveRequest request;
  request.set_model("models/m");
  const auto curve = GetCurve(request);
  ASSERT_TRUE(curve.ok()) << curve.status();
  EXPECT_EQ(curve->calibration(), created->name());
  EXPECT_GT(curve->points_size(), 30);
  request.set_max_points(5);
  EXPECT_LE(GetCurve(request)->points_size(), 5);
}

TEST_F(ServiceTest, CreateCalibrationErrors) {
  ExpectError(Create("m", MakeCalibration()).status(), kInvalid,
              "INVALID_MODEL_ID", "parent");
  ExpectError(Create("models/.m", MakeCalibration()).status(), kInvalid,
              "INVALID_MODEL_ID", "parent");
  v1::CreateCalibrationRequest empty;
  empty.set_parent("models/m");
  ExpectError(
      Call(*registry_, &RegistryStub::CreateCalibration, empty).status(),
      kInvalid, "INVALID_CALIBRATION", "calibration");
  v1::Calibration bad = MakeCalibration();
  bad.mutable_tables(0)->set_c2(5, std::numeric_limits<double>::infinity());
  ExpectError(Create("models/m", bad).status(), kInvalid, "INVALID_CALIBRATION",
              "tables[0].c2[5]");
  v1::Calibration renamed = MakeCalibration();
  renamed.set_name(CalibrationName("m", kNoDigest));
  ExpectError(Create("models/m", renamed).status(), kInvalid, "DIGEST_MISMATCH",
              "calibration.name");
  EXPECT_EQ(ListModels()->models_size(), 0);
}

TEST_F(ServiceTest, ErrorsAboutNamesAndPages) {
  const auto created = Create("models/m", MakeCalibration());
  ASSERT_TRUE(created.ok());
  const std::string missing = CalibrationName("m", kNoDigest);
  const std::string nowhere = CalibrationName("other", kNoDigest);
  ExpectError(Get("models/m").status(), kInvalid, "INVALID_NAME", "name");
  ExpectError(Get(missing).status(), kNotFound, "CALIBRATION_NOT_FOUND");
  ExpectError(Get(nowhere).status(), kNotFound, "MODEL_NOT_FOUND");
  ExpectError(Get("models/other/calibrations/latest").status(), kNotFound,
              "MODEL_NOT_FOUND");
  ExpectError(Delete("models/m/calibrations/x"), kInvalid, "INVALID_NAME",
              "name");
  ExpectError(Delete("models/m/calibrations/latest"), kInvalid, "INVALID_NAME",
              "name");
  ExpectError(Delete(missing), kNotFound, "CALIBRATION_NOT_FOUND");
  ExpectError(Delete(nowhere), kNotFound, "MODEL_NOT_FOUND");
  ExpectError(List("m").status(), kInvalid, "INVALID_NAME", "parent");
  ExpectError(List("models/m", -1).status(), kInvalid, "INVALID_PAGE_SIZE",
              "page_size");
  ExpectError(List("models/m", 0, "zzz").status(), kInvalid,
              "INVALID_PAGE_TOKEN", "page_token");
  ExpectError(List("models/other").status(), kNotFound, "MODEL_NOT_FOUND");
  ExpectError(GetModel("x").status(), kInvalid, "INVALID_NAME", "name");
  ExpectError(GetModel("models/other").status(), kNotFound, "MODEL_NOT_FOUND");
  ExpectError(ListModels(-1).status(), kInvalid, "INVALID_PAGE_SIZE",
              "page_size");
  ExpectError(ListModels(0, "zzz").status(), kInvalid, "INVALID_PAGE_TOKEN",
              "page_token");
  EXPECT_TRUE(Get(created->name()).ok());
}

struct BitMapError {
  absl::StatusCode code;
  const char* reason;
  const char* field;
  std::function<void(v1::GetBitMapRequest*)> change;
};

TEST_F(ServiceTest, GetBitMapErrors) {
  CalibrationSpec spec;
  spec.quantizers = {DefaultQuantizer(Quantizer::KIVI),
                     DefaultQuantizer(Quantizer::TURBOQUANT)};
  ASSERT_TRUE(Create("models/m", MakeCalibration(spec)).ok());
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  using R = v1::GetBitMapRequest;
  const BitMapError cases[] = {
      {kInvalid, "INVALID_NAME", "model", [](R* r) { r->clear_model(); }},
      {kInvalid, "INVALID_NAME", "model", [](R* r) { r->set_model("m"); }},
      {kInvalid, "INVALID_NAME", "calibration",
       [](R* r) { r->set_calibration("models/m"); }},
      {kInvalid, "INVALID_NAME", "calibration",
       [](R* r) { r->set_calibration(CalibrationName("n", kNoDigest)); }},
      {kNotFound, "MODEL_NOT_FOUND", "",
       [](R* r) { r->set_model("models/n"); }},
      {kNotFound, "CALIBRATION_NOT_FOUND", "",
       [](R* r) { r->set_calibration(CalibrationName("m", kNoDigest)); }},
      {kInvalid, "BUDGET_MISSING", "budget", [](R* r) { r->clear_budget(); }},
      {kInvalid, "BUDGET_MISSING", "budget",
       [](R* r) { r->mutable_budget()->Clear(); }},
      {kInvalid, "BUDGET_INVALID", "budget.effective_bits",
       [&](R* r) { r->mutable_budget()->set_effective_bits(kNan); }},
      {kInvalid, "BUDGET_INVALID", "budget.effective_bits",
       [&](R* r) { r->mutable_budget()->set_effective_bits(kInf); }},
      {kInvalid, "BUDGET_INVALID", "budget.code_bits",
       [](R* r) { r->mutable_budget()->set_code_bits(-1); }},
      {kInvalid, "BUDGET_INVALID", "budget.bytes_per_token",
       [](R* r) { r->mutable_budget()->set_bytes_per_token(0); }},
      {kInvalid, "BUDGET_INVALID", "budget.max_loss_increase",
       [&](R* r) { r->mutable_budget()->set_max_loss_increase(kNan); }},
      {kInvalid, "BUDGET_INVALID", "budget.max_loss_increase",
       [](R* r) { r->mutable_budget()->set_max_loss_increase(-0.1); }},
      {kInvalid, "BUDGET_NEEDS_ONE_QUANTIZER", "budget.code_bits",
       [](R* r) { r->mutable_budget()->set_code_bits(3); }},
      {kInvalid, "OBJECTIVE_NEEDS_ONE_QUANTIZER", "policy.objective",
       [](R* r) { r->mutable_policy()->set_objective(Policy::PAPER); }},
      {kInvalid, "UNSUPPORTED_QUANTIZER", "quantizers[0].kind",
       [](R* r) { r->add_quantizers(); }},
      {kInvalid, "UNSUPPORTED_QUANTIZER", "quantizers[0].kind",
       [](R* r) {
         r->add_quantizers()->set_kind(static_cast<Quantizer::Kind>(17));
       }},
      {kInvalid, "UNSUPPORTED_QUANTIZER", "quantizers[1].group_size",
       [](R* r) {
         r->add_quantizers()->set_kind(Quantizer::KIVI);
         *r->add_quantizers() = r->quantizers(0);
         r->mutable_quantizers(1)->set_group_size(33);
       }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.min_width",
       [](R* r) { r->mutable_policy()->set_min_width(9); }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.max_width",
       [](R* r) { r->mutable_policy()->set_max_width(16); }},
      {kInvalid, "INVALID_POLICY", "policy.min_width",
       [](R* r) {
         r->mutable_policy()->set_min_width(5);
         r->mutable_policy()->set_max_width(4);
       }},
      {kInvalid, "INVALID_POLICY", "policy.objective",
       [](R* r) {
         r->mutable_policy()->set_objective(static_cast<Policy::Objective>(9));
       }},
      {kInvalid, "INVALID_POLICY", "policy.strategy",
       [](R* r) {
         r->mutable_policy()->set_strategy(static_cast<Policy::Strategy>(9));
       }},
      {kInvalid, "INVALID_POLICY", "policy.separate_key_value",
       [](R* r) {
         r->mutable_policy()->set_strategy(Policy::K_CEIL_V_FLOOR);
         r->mutable_policy()->set_separate_key_value(true);
       }},
      {kInvalid, "INVALID_POLICY", "policy.include_continuous",
       [](R* r) { r->mutable_policy()->set_include_continuous(true); }},
      {kInvalid, "INVALID_POLICY", "policy.include_continuous",
       [](R* r) {
         r->add_quantizers()->set_kind(Quantizer::KIVI);
         r->mutable_policy()->set_include_continuous(true);
         r->mutable_policy()->set_key_min_width(3);
       }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.allowed_widths[1]",
       [](R* r) {
         r->mutable_policy()->add_allowed_widths(4);
         r->mutable_policy()->add_allowed_widths(16);
       }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.allowed_widths[0]",
       [](R* r) { r->mutable_policy()->add_allowed_widths(0); }},
      {kInvalid, "INVALID_POLICY", "policy.allowed_widths[1]",
       [](R* r) {
         r->mutable_policy()->add_allowed_widths(4);
         r->mutable_policy()->add_allowed_widths(4);
       }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.key_min_width",
       [](R* r) { r->mutable_policy()->set_key_min_width(9); }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.value_min_width",
       [](R* r) { r->mutable_policy()->set_value_min_width(16); }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.rules[0].min_width",
       [](R* r) { r->mutable_policy()->add_rules()->set_min_width(9); }},
      {kInvalid, "UNSUPPORTED_WIDTH", "policy.rules[0].max_width",
       [](R* r) { r->mutable_policy()->add_rules()->set_max_width(15); }},
      {kInvalid, "INVALID_POLICY", "policy.rules[0].max_width",
       [](R* r) { r->mutable_policy()->add_rules()->set_max_width(16); }},
      {kInvalid, "INVALID_POLICY", "policy.rules[0]",
       [](R* r) { r->mutable_policy()->add_rules()->set_layer(0); }},
      {kInvalid, "INVALID_POLICY", "policy.rules[0].min_width",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(5);
         r->mutable_policy()->mutable_rules(0)->set_max_width(4);
       }},
      {kInvalid, "INVALID_POLICY", "policy.rules[1].layer",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(3);
         r->mutable_policy()->add_rules()->set_min_width(3);
         r->mutable_policy()->mutable_rules(1)->set_layer(1000);
       }},
      {kInvalid, "INVALID_POLICY", "policy.rules[0].kv_head",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(3);
         r->mutable_policy()->mutable_rules(0)->set_kv_head(1000);
       }},
      {kInvalid, "INVALID_POLICY", "policy.rules[0].tensor",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(3);
         r->mutable_policy()->mutable_rules(0)->set_tensor(
             static_cast<v1::GroupRule::Tensor>(9));
       }},
      {kInvalid, "INVALID_POLICY", "policy.rules",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(3);
         r->mutable_policy()->add_rules()->set_min_width(3);
       }},
      {kInvalid, "INVALID_POLICY", "policy.rules",
       [](R* r) {
         for (int i = 0; i <= 4096; ++i) {
           r->mutable_policy()->add_rules()->set_min_width(3);
         }
       }},
      {kInvalid, "INVALID_POLICY", "policy",
       [](R* r) {
         r->mutable_policy()->add_rules()->set_min_width(6);
         r->mutable_policy()->set_max_width(4);
       }},
      {kInvalid, "INVALID_POLICY", "cache.context_tokens",
       [](R* r) { r->mutable_cache()->set_context_tokens(~0u); }},
      {kPrecondition, "QUANTIZER_NOT_CALIBRATED", "",
       [](R* r) { r->add_quantizers()->set_kind(Quantizer::QUAROT); }},
      {kPrecondition, "QUANTIZER_NOT_CALIBRATED", "",
       [](R* r) {
         r->add_quantizers()->set_kind(Quantizer::KIVI);
         r->mutable_quantizers(0)->set_group_size(64);
       }},
      {kPrecondition, "QUANTIZER_NOT_CALIBRATED", "",
       [](R* r) {
         r->add_quantizers()->set_kind(Quantizer::TURBOQUANT);
         r->mutable_quantizers(0)->set_seed(1);
       }},
      {kPrecondition, "CALIBRATION_MISMATCH", "",
       [](R* r) { r->mutable_cache()->set_sink_tokens(0); }},
      {kOutOfRange, "BUDGET_BELOW_MINIMUM", "",
       [](R* r) { r->mutable_budget()->set_effective_bits(0.01); }},
      {kOutOfRange, "BUDGET_ABOVE_MAXIMUM", "",
       [](R* r) { r->mutable_budget()->set_effective_bits(16.01); }},
      {kOutOfRange, "BUDGET_ABOVE_MAXIMUM", "",
       [](R* r) {
         r->add_quantizers()->set_kind(Quantizer::KIVI);
         r->mutable_budget()->set_code_bits(17);
       }},
  };
  for (const BitMapError& test : cases) {
    v1::GetBitMapRequest request = Request();
    test.change(&request);
    SCOPED_TRACE(request.ShortDebugString());
    ExpectError(GetBitMap(request).status(), test.code, test.reason,
                test.field);
  }
  // What would work is said in words and in metadata.
  v1::GetBitMapRequest request = Request();
  request.add_quantizers()->set_kind(Quantizer::RTN);
  const absl::Status status = GetBitMap(request).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("kivi and turboquant"));
  EXPECT_EQ(ErrorInfoMetadata(status).at("calibrated"), "kivi and turboquant");
  // None of that stands in the way of a good request.
  EXPECT_TRUE(GetBitMap(Request()).ok());
}

TEST_F(ServiceTest, CurveErrors) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  v1::GetRateDistortionCurveRequest request;
  ExpectError(GetCurve(request).status(), kInvalid, "INVALID_NAME", "model");
  request.set_model("models/n");
  ExpectError(GetCurve(request).status(), kNotFound, "MODEL_NOT_FOUND");
  request.set_model("models/m");
  request.mutable_policy()->set_objective(Policy::PAPER);
  ExpectError(GetCurve(request).status(), kInvalid,
              "OBJECTIVE_NEEDS_ONE_QUANTIZER", "policy.objective");
  request.clear_policy();
  request.mutable_cache()->set_sink_tokens(9);
  ExpectError(GetCurve(request).status(), kPrecondition,
              "CALIBRATION_MISMATCH");
  request.clear_cache();
  request.mutable_capacity()->set_memory_bytes(-1);
  ExpectError(GetCurve(request).status(), kInvalid, "INVALID_CAPACITY",
              "capacity.memory_bytes");
  request.mutable_capacity()->set_memory_bytes(1);
  ExpectError(GetCurve(request).status(), absl::StatusCode::kOutOfRange,
              "NOTHING_FITS");
}

TEST_F(ServiceTest, AFullDiskIsSaidAndLosesNothing) {
  const auto kept = Create("models/m", MakeCalibration());
  ASSERT_TRUE(kept.ok());
  disk_.Set(FailingDisk::Mode::kNoSpace);
  ExpectError(Create("models/m", MakeCalibration({.seed = 2})).status(),
              absl::StatusCode::kResourceExhausted, "STORE_FULL");
  // The refused one isn't there, the acknowledged one is, and maps are still
  // answered though they can't be stored.
  EXPECT_EQ(List("models/m")->calibrations_size(), 1);
  EXPECT_EQ(Get("models/m/calibrations/latest")->name(), kept->name());
  const auto map = GetBitMap(Request());
  ASSERT_TRUE(map.ok()) << map.status();
  disk_.Set(FailingDisk::Mode::kWorks);
  Restart();
  EXPECT_EQ(Get(kept->name())->SerializeAsString(), kept->SerializeAsString());
  EXPECT_EQ(GetBitMap(Request())->SerializeAsString(),
            map->SerializeAsString());
  EXPECT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
}

TEST_F(ServiceTest, ABrokenDiskIsUnavailable) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  disk_.Set(FailingDisk::Mode::kBroken);
  ExpectError(Create("models/m", MakeCalibration({.seed = 2})).status(),
              absl::StatusCode::kUnavailable, "STORE_ERROR");
  disk_.Set(FailingDisk::Mode::kWorks);
}

// Looks at the allocator's store many times a second.
class StoreHealth {
 public:
  StoreHealth(Server* server, Allocator* allocator)
      : monitor_(server, [allocator] {
          auto dependencies = allocator->dependencies();
          dependencies[0].period = 20ms;
          return dependencies;
        }()) {}

  // Waits until readiness and the metric say that it is or isn't well.
  bool Becomes(bool well) const {
    const std::string sample = absl::StrCat(
        "ratequant_dependency_up{dependency=\"store\"} ", well ? 1 : 0, "\n");
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (monitor_.Ready().ok() != well ||
           !absl::StrContains(Metrics::Get().Text(), sample)) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  std::string message() const {
    return std::string(monitor_.Ready().message());
  }

 private:
  const HealthMonitor monitor_;
};

TEST_F(ServiceTest, AFullDiskShowsInHealthUntilThereIsRoom) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  ASSERT_TRUE(GetBitMap(Request()).ok());
  const StoreHealth health(server_.get(), allocator_.get());
  EXPECT_TRUE(health.Becomes(true));
  disk_.Set(FailingDisk::Mode::kNoSpace);
  EXPECT_FALSE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  EXPECT_TRUE(health.Becomes(false));
  EXPECT_THAT(health.message(), HasSubstr("store: no room left"));
  EXPECT_TRUE(GetBitMap(Request()).ok());
  disk_.Set(FailingDisk::Mode::kWorks);
  EXPECT_TRUE(health.Becomes(true));
  EXPECT_TRUE(Create("models/m", MakeCalibration({.seed = 3})).ok());
}

TEST_F(ServiceTest, ABrokenDiskShowsInHealthUntilARestart) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  ASSERT_TRUE(GetBitMap(Request()).ok());
  auto health = std::make_unique<StoreHealth>(server_.get(), allocator_.get());
  EXPECT_TRUE(health->Becomes(true));
  disk_.Set(FailingDisk::Mode::kBroken);
  EXPECT_FALSE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  EXPECT_TRUE(health->Becomes(false));
  EXPECT_THAT(health->message(), HasSubstr("store: the store failed"));
  EXPECT_TRUE(GetBitMap(Request()).ok());
  disk_.Set(FailingDisk::Mode::kWorks);
  health.reset();
  Restart();
  health = std::make_unique<StoreHealth>(server_.get(), allocator_.get());
  EXPECT_TRUE(health->Becomes(true));
  EXPECT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
}

TEST_F(ServiceTest, ManyCallersAtOnceGetTheSameAnswers) {
  ASSERT_TRUE(
      Create("models/m", MakeCalibration({.layers = 30, .kv_heads = 3})).ok());
  std::vector<std::thread> threads;
  std::vector<std::string> answers(4 * 20);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t, &answers] {
      for (int i = 0; i < 20; ++i) {
        const auto map = GetBitMap(Request(2.5 + 0.1 * i));
        EXPECT_TRUE(map.ok()) << map.status();
        if (map.ok()) answers[t * 20 + i] = map->SerializeAsString();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 20; ++i) {
    for (int t = 1; t < 4; ++t) EXPECT_EQ(answers[t * 20 + i], answers[i]);
  }
}

}  // namespace
}  // namespace ratequant::allocation
