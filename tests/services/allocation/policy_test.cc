// Named policies, over a real server and database.

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PolicyTest : public ServiceTest {
 protected:
  absl::StatusOr<v1::NamedPolicy> CreatePolicy(const std::string& id,
                                               const v1::Policy& policy) {
    v1::CreatePolicyRequest request;
    request.set_policy_id(id);
    *request.mutable_policy() = policy;
    return Call(*registry_, &RegistryStub::CreatePolicy, request);
  }
  absl::StatusOr<v1::NamedPolicy> GetPolicy(const std::string& name) {
    v1::GetPolicyRequest request;
    request.set_name(name);
    return Call(*registry_, &RegistryStub::GetPolicy, request);
  }
  absl::StatusOr<v1::ListPoliciesResponse> ListPolicies(
      int size = 0, const std::string& token = "") {
    v1::ListPoliciesRequest request;
    request.set_page_size(size);
    request.set_page_token(token);
    return Call(*registry_, &RegistryStub::ListPolicies, request);
  }
  absl::Status DeletePolicy(const std::string& name) {
    v1::DeletePolicyRequest request;
    request.set_name(name);
    return Call(*registry_, &RegistryStub::DeletePolicy, request).status();
  }
  absl::StatusOr<v1::GetBitMapResponse> GetBitMapWith(const std::string& name) {
    v1::GetBitMapRequest request = Request(4);
    request.set_policy_name(name);
    return GetBitMap(request);
  }
};

v1::Policy PinnedFirstLayer(uint32_t width) {
  v1::Policy policy;
  for (uint32_t w : {8, 2, 4}) policy.add_allowed_widths(w);
  v1::GroupRule* rule = policy.add_rules();
  rule->set_layer(0);
  rule->set_min_width(width);
  return policy;
}

TEST_F(PolicyTest, ANameStandsForItsContent) {
  ASSERT_TRUE(Create("models/m", testing::MakeCalibration()).ok());
  const auto created = CreatePolicy("edges-8", PinnedFirstLayer(8));
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name(), "policies/edges-8");
  EXPECT_GT(created->create_time().seconds(), 0);
  EXPECT_EQ(created->policy().objective(), v1::Policy::LOSS_PROJECTED);
  EXPECT_THAT(created->policy().allowed_widths(), ElementsAre(2, 4, 8));

  v1::GetBitMapRequest spelled_out = Request(4);
  *spelled_out.mutable_policy() = PinnedFirstLayer(8);
  const auto expected = GetBitMap(spelled_out);
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (int call = 0; call < 2; ++call) {
    const auto named = GetBitMapWith("policies/edges-8");
    ASSERT_TRUE(named.ok()) << named.status();
    EXPECT_EQ(named->SerializeAsString(), expected->SerializeAsString());
  }
  EXPECT_EQ(GetStatistics().solves(), 1);

  v1::GetRateDistortionCurveRequest curve;
  curve.set_model("models/m");
  *curve.mutable_policy() = PinnedFirstLayer(8);
  const auto expected_curve = GetCurve(curve);
  curve.clear_policy();
  curve.set_policy_name("policies/edges-8");
  const auto named_curve = GetCurve(curve);
  ASSERT_TRUE(named_curve.ok()) << named_curve.status();
  EXPECT_EQ(named_curve->SerializeAsString(),
            expected_curve->SerializeAsString());

  // Another restart, the same policy.
  Restart();
  EXPECT_EQ(GetPolicy("policies/edges-8")->SerializeAsString(),
            created->SerializeAsString());
}

TEST_F(PolicyTest, ContentNeverChangesUnderAName) {
  ASSERT_TRUE(Create("models/m", testing::MakeCalibration()).ok());
  const auto created = CreatePolicy("p", PinnedFirstLayer(8));
  v1::Policy reordered = PinnedFirstLayer(8);
  reordered.mutable_allowed_widths()->SwapElements(0, 2);
  const auto again = CreatePolicy("p", reordered);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->SerializeAsString(), created->SerializeAsString());
  ExpectError(CreatePolicy("p", PinnedFirstLayer(4)).status(),
              absl::StatusCode::kAlreadyExists, "POLICY_EXISTS");
  EXPECT_EQ(GetPolicy("policies/p")->SerializeAsString(),
            created->SerializeAsString());

  // Deleted, its maps stay; created anew, the name has the new content's.
  const auto before = GetBitMapWith("policies/p");
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_TRUE(DeletePolicy("policies/p").ok());
  ExpectError(GetBitMapWith("policies/p").status(), kNotFound,
              "POLICY_NOT_FOUND");
  v1::GetBitMapRequest spelled_out = Request(4);
  *spelled_out.mutable_policy() = PinnedFirstLayer(8);
  EXPECT_EQ(GetBitMap(spelled_out)->etag(), before->etag());
  EXPECT_EQ(GetStatistics().solves(), 1);
  ASSERT_TRUE(CreatePolicy("p", PinnedFirstLayer(4)).ok());
  EXPECT_NE(GetBitMapWith("policies/p")->etag(), before->etag());
}

TEST_F(PolicyTest, AreListedByNamePageByPage) {
  EXPECT_EQ(ListPolicies()->policies_size(), 0);
  for (const char* id : {"c", "a", "b"}) {
    ASSERT_TRUE(CreatePolicy(id, PinnedFirstLayer(8)).ok());
  }
  std::vector<std::string> names;
  std::string token;
  do {
    const auto page = ListPolicies(2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->policies_size(), 2);
    for (const auto& policy : page->policies()) names.push_back(policy.name());
    token = page->next_page_token();
  } while (!token.empty());
  EXPECT_THAT(names, ElementsAre("policies/a", "policies/b", "policies/c"));
  ExpectError(ListPolicies(-1).status(), kInvalid, "INVALID_PAGE_SIZE");
  ExpectError(ListPolicies(0, "x").status(), kInvalid, "INVALID_PAGE_TOKEN");
}

TEST_F(PolicyTest, MistakesAreNamed) {
  ASSERT_TRUE(Create("models/m", testing::MakeCalibration()).ok());
  for (const char* id : {"", ".a", "a/b", "a b"}) {
    ExpectError(CreatePolicy(id, v1::Policy()).status(), kInvalid,
                "INVALID_NAME", "policy_id");
  }
  v1::Policy bad;
  bad.add_allowed_widths(9);
  ExpectError(CreatePolicy("p", bad).status(), kInvalid, "UNSUPPORTED_WIDTH",
              "policy.allowed_widths[0]");
  bad.Clear();
  bad.set_max_perplexity_increase(std::numeric_limits<double>::quiet_NaN());
  ExpectError(CreatePolicy("p", bad).status(), kInvalid, "INVALID_POLICY",
              "policy.max_perplexity_increase");
  ExpectError(GetPolicy("policies/p").status(), kNotFound, "POLICY_NOT_FOUND");
  ExpectError(GetPolicy("p").status(), kInvalid, "INVALID_NAME", "name");
  ExpectError(DeletePolicy("policies/p"), kNotFound, "POLICY_NOT_FOUND");
  ExpectError(GetBitMapWith("p").status(), kInvalid, "INVALID_NAME",
              "policy_name");
  const auto unknown = GetBitMapWith("policies/nobody").status();
  ExpectError(unknown, kNotFound, "POLICY_NOT_FOUND");
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("policies/nobody"));

  ASSERT_TRUE(CreatePolicy("p", PinnedFirstLayer(8)).ok());
  v1::GetBitMapRequest both = Request(4);
  both.set_policy_name("policies/p");
  both.mutable_policy()->set_max_width(4);
  ExpectError(GetBitMap(both).status(), kInvalid, "INVALID_POLICY",
              "policy_name");

  // A layer is checked against the model that the policy is used with.
  v1::Policy far = PinnedFirstLayer(8);
  far.mutable_rules(0)->set_layer(1000);
  ASSERT_TRUE(CreatePolicy("far", far).ok());
  ExpectError(GetBitMapWith("policies/far").status(), kInvalid,
              "INVALID_POLICY", "policy.rules[0].layer");
}

}  // namespace
}  // namespace ratequant::allocation
