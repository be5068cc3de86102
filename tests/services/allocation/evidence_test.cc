// What measurements do to answers, through a real server over TCP.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::MakeCalibration;
using ::testing::HasSubstr;
using v1::Policy;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class EvidenceTest : public ServiceTest {
 protected:
  EvidenceTest() {
    calibration_ = Create("models/m", MakeCalibration())->name();
    map_ = GetBitMap(Request())->bit_map().name();
    uniform_ = GetBitMap(Uniform())->bit_map().name();
  }

  static v1::GetBitMapRequest Uniform() {
    v1::GetBitMapRequest request = Request();
    request.mutable_policy()->set_strategy(Policy::UNIFORM);
    return request;
  }

  // A measurement of map_ against uniform_: full precision at perplexity 10,
  // uniform at 12.
  v1::Evaluation Measured(double perplexity, double stderr_uniform = 0.01) {
    v1::Evaluation evaluation;
    evaluation.set_uniform_bit_map(uniform_);
    evaluation.set_text_digest(std::string(64, 'a'));
    evaluation.set_text("held-out.txt");
    evaluation.set_tokens(3066);
    evaluation.set_fp_perplexity(10);
    evaluation.set_uniform_perplexity(12);
    evaluation.set_perplexity(perplexity);
    evaluation.set_loss_minus_uniform(std::log(perplexity / 12));
    evaluation.set_loss_minus_uniform_stderr(stderr_uniform);
    evaluation.set_loss_minus_fp(std::log(perplexity / 10));
    evaluation.set_loss_minus_fp_stderr(0.01);
    return evaluation;
  }

  absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const std::string& parent, int page_size = 0,
      const std::string& page_token = "") {
    v1::ListEvaluationsRequest request;
    request.set_parent(parent);
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    return Call(*registry_, &RegistryStub::ListEvaluations, request);
  }

  absl::Status DeleteEvaluation(const std::string& name) {
    v1::DeleteEvaluationRequest request;
    request.set_name(name);
    return Call(*registry_, &RegistryStub::DeleteEvaluation, request).status();
  }

  std::string calibration_, map_, uniform_;
};

TEST_F(EvidenceTest, AnEvaluationIsStoredOnceAndSurvivesARestart) {
  const auto recorded = Record(map_, Measured(11));
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  EXPECT_THAT(recorded->name(), HasSubstr(map_ + "/evaluations/"));
  EXPECT_TRUE(recorded->has_create_time());
  // The same again, also under its full name, is the stored one.
  v1::Evaluation again = Measured(11);
  EXPECT_EQ(Record(map_, again)->SerializeAsString(),
            recorded->SerializeAsString());
  again.set_name(recorded->name());
  EXPECT_EQ(Record(map_, again)->SerializeAsString(),
            recorded->SerializeAsString());
  Restart();
  const auto listed = ListEvaluations(map_);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->evaluations_size(), 1);
  EXPECT_EQ(listed->evaluations(0).SerializeAsString(),
            recorded->SerializeAsString());
  const auto answer = GetBitMap(Request());
  EXPECT_EQ(answer->bit_map().name(), map_);
  EXPECT_EQ(answer->evaluation().name(), recorded->name());
  EXPECT_FALSE(answer->worse_than_uniform());
  EXPECT_FALSE(answer->has_replacement());
}

TEST_F(EvidenceTest, AMapThatMeasuredWorseIsReplacedByUniformUnlessKept) {
  const auto recorded = Record(map_, Measured(12.5));
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  const auto replaced = GetBitMap(Request());
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_EQ(replaced->bit_map().name(), uniform_);
  EXPECT_EQ("models/m/bitMaps/" + replaced->etag(), uniform_);
  EXPECT_EQ(replaced->replacement().replaced_bit_map(), map_);
  EXPECT_EQ(replaced->replacement().evaluation().name(), recorded->name());
  EXPECT_THAT(replaced->replacement().reason(),
              HasSubstr("worse than uniform"));
  EXPECT_EQ(replaced->evaluation().name(), recorded->name());
  EXPECT_FALSE(replaced->worse_than_uniform());

  v1::GetBitMapRequest keep = Request();
  keep.mutable_policy()->set_keep_measured_worse(true);
  const auto kept = GetBitMap(keep);
  EXPECT_EQ(kept->bit_map().name(), map_);
  EXPECT_TRUE(kept->worse_than_uniform());
  EXPECT_FALSE(kept->has_replacement());
  // What chooses isn't part of the map: its policy and name are as they were.
  EXPECT_FALSE(kept->bit_map().policy().keep_measured_worse());
  // The map that was known before is another answer now.
  v1::GetBitMapRequest known = Request();
  known.set_known_etag(map_.substr(map_.rfind('/') + 1));
  EXPECT_TRUE(GetBitMap(known)->has_bit_map());
  known.set_known_etag(replaced->etag());
  EXPECT_TRUE(GetBitMap(known)->unchanged());
  EXPECT_TRUE(GetBitMap(known)->has_replacement());
}

TEST_F(EvidenceTest, WithinTheStandardErrorNothingIsReplaced) {
  ASSERT_TRUE(Record(map_, Measured(12.1, 0.02)).ok());
  EXPECT_EQ(GetBitMap(Request())->bit_map().name(), map_);
  EXPECT_FALSE(GetBitMap(Request())->worse_than_uniform());
}

TEST_F(EvidenceTest, TheNewestEvaluationCounts) {
  ASSERT_TRUE(Record(map_, Measured(12.5)).ok());
  EXPECT_EQ(GetBitMap(Request())->bit_map().name(), uniform_);
  const auto better = Record(map_, Measured(11));
  EXPECT_EQ(GetBitMap(Request())->bit_map().name(), map_);
  ASSERT_TRUE(DeleteEvaluation(better->name()).ok());
  EXPECT_EQ(GetBitMap(Request())->bit_map().name(), uniform_);
  ExpectError(DeleteEvaluation(better->name()), kNotFound,
              "EVALUATION_NOT_FOUND");
}

TEST_F(EvidenceTest, OnlyMapsThatPassedAreSelectedWhenAskedFor) {
  v1::GetBitMapRequest evaluated = Request(), limited = Request();
  evaluated.mutable_policy()->set_require_evaluated(true);
  limited.mutable_policy()->set_max_perplexity_increase(0.15);
  for (const auto& request : {evaluated, limited}) {
    const absl::Status missing = GetBitMap(request).status();
    ExpectError(missing, kPrecondition, "EVALUATION_MISSING");
    EXPECT_EQ(ErrorInfoMetadata(missing).at("bit_map"), map_);
    EXPECT_THAT(std::string(missing.message()), HasSubstr("RecordEvaluation"));
  }
  ASSERT_TRUE(Record(map_, Measured(11.4)).ok());
  EXPECT_EQ(GetBitMap(evaluated)->bit_map().name(), map_);
  EXPECT_EQ(GetBitMap(limited)->bit_map().name(), map_);
  limited.mutable_policy()->set_max_perplexity_increase(0.13);
  const absl::Status high = GetBitMap(limited).status();
  ExpectError(high, kPrecondition, "PERPLEXITY_TOO_HIGH");
  EXPECT_EQ(ErrorInfoMetadata(high).at("bit_map"), map_);
  EXPECT_NEAR(std::stod(ErrorInfoMetadata(high).at("measured")), 0.14, 1e-9);
  // The map in place of a worse one has to pass too: uniform measured 1.2.
  ASSERT_TRUE(Record(map_, Measured(12.5)).ok());
  EXPECT_EQ(GetBitMap(evaluated)->bit_map().name(), uniform_);
  limited.mutable_policy()->set_max_perplexity_increase(0.19);
  ExpectError(GetBitMap(limited).status(), kPrecondition,
              "PERPLEXITY_TOO_HIGH");
  limited.mutable_policy()->set_max_perplexity_increase(0.21);
  EXPECT_EQ(GetBitMap(limited)->bit_map().name(), uniform_);
  for (double bad : {kNan, -0.1}) {
    limited.mutable_policy()->set_max_perplexity_increase(bad);
    ExpectError(GetBitMap(limited).status(), kInvalid, "INVALID_POLICY",
                "policy.max_perplexity_increase");
  }
}

TEST_F(EvidenceTest, AnEvaluationThatCannotBeTrueIsRefused) {
  using E = v1::Evaluation;
  const std::string other =
      GetBitMap(Request(4))->bit_map().name();  // another budget
  const std::pair<const char*, std::function<void(E*)>> cases[] = {
      {"evaluation.text_digest", [](E* e) { e->set_text_digest("ABC"); }},
      {"evaluation.tokens", [](E* e) { e->set_tokens(0); }},
      {"evaluation.fp_perplexity", [](E* e) { e->set_fp_perplexity(0.5); }},
      {"evaluation.uniform_perplexity",
       [](E* e) { e->set_uniform_perplexity(kNan); }},
      {"evaluation.perplexity", [](E* e) { e->set_perplexity(-1); }},
      {"evaluation.loss_minus_uniform",
       [](E* e) { e->set_loss_minus_uniform(0.3); }},
      {"evaluation.loss_minus_uniform_stderr",
       [](E* e) { e->set_loss_minus_uniform_stderr(-0.1); }},
      {"evaluation.loss_minus_fp", [](E* e) { e->set_loss_minus_fp(kNan); }},
      {"evaluation.loss_minus_fp_stderr",
       [](E* e) { e->set_loss_minus_fp_stderr(kNan); }},
      {"evaluation.uniform_bit_map",
       [this](E* e) { e->set_uniform_bit_map(map_); }},
  };
  for (const auto& [field, change] : cases) {
    v1::Evaluation evaluation = Measured(11);
    change(&evaluation);
    ExpectError(Record(map_, evaluation).status(), kInvalid,
                "INVALID_EVALUATION", field);
  }
  ExpectError(Record(other, Measured(11)).status(), kInvalid,
              "INVALID_EVALUATION", "evaluation.uniform_bit_map");
  ExpectError(Record("models/m", Measured(11)).status(), kInvalid,
              "INVALID_NAME", "bit_map");
  ExpectError(Record(BitMapName("m", kNoDigest), Measured(11)).status(),
              kNotFound, "BIT_MAP_NOT_FOUND");
  v1::Evaluation named = Measured(11);
  named.set_name(map_ + "/evaluations/" + kNoDigest);
  ExpectError(Record(map_, named).status(), kInvalid, "DIGEST_MISMATCH",
              "evaluation.name");
  EXPECT_EQ(ListEvaluations("models/m")->evaluations_size(), 0);
  // The uniform map itself can be measured.
  v1::Evaluation uniform = Measured(12);
  EXPECT_TRUE(Record(uniform_, uniform).ok());
}

TEST_F(EvidenceTest, ACalibrationWithEvaluationsNeedsForceToGo) {
  const auto first = Record(map_, Measured(11));
  ASSERT_TRUE(Record(map_, Measured(11.5)).ok());
  const absl::Status refused = Delete(calibration_);
  ExpectError(refused, kPrecondition, "CALIBRATION_IN_USE");
  EXPECT_EQ(ErrorInfoMetadata(refused).at("evaluations"), "2");
  EXPECT_EQ(GetBitMap(Request())->bit_map().name(), map_);
  ASSERT_TRUE(Delete(calibration_, /*force=*/true).ok());
  // Coming back, it brings no evaluations along.
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  EXPECT_EQ(ListEvaluations("models/m")->evaluations_size(), 0);
  EXPECT_FALSE(GetBitMap(Request())->has_evaluation());
  EXPECT_TRUE(Delete(calibration_).ok());
}

TEST_F(EvidenceTest, EvaluationsAreListedInPagesByMapAndByModel) {
  for (double perplexity : {11.0, 11.1, 11.2}) {
    ASSERT_TRUE(Record(map_, Measured(perplexity)).ok());
  }
  ASSERT_TRUE(Record(uniform_, Measured(12)).ok());
  EXPECT_EQ(ListEvaluations(map_)->evaluations_size(), 3);
  std::vector<std::string> names;
  std::string token;
  do {
    const auto page = ListEvaluations("models/m", 3, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& e : page->evaluations()) names.push_back(e.name());
    token = page->next_page_token();
  } while (!token.empty());
  EXPECT_EQ(names.size(), 4u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  token = ListEvaluations(map_, 1)->next_page_token();
  ExpectError(ListEvaluations("models/m", 1, token).status(), kInvalid,
              "INVALID_PAGE_TOKEN", "page_token");
  ExpectError(ListEvaluations("m").status(), kInvalid, "INVALID_NAME",
              "parent");
  ExpectError(ListEvaluations("models/n").status(), kNotFound,
              "MODEL_NOT_FOUND");
}

}  // namespace
}  // namespace ratequant::allocation
