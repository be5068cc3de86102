#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "services/common/auth_policy.h"
#include "services/common/auth_rules.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

constexpr char kTokens[] =
    "# comment\n\nteam 0123456789abcdef  # first\nteam fedcba9876543210\n";

std::vector<const google::protobuf::FileDescriptor*> ServiceFiles() {
  return {v1::GetModelRequest::descriptor()->file(),
          v1::CreateBackupRequest::descriptor()->file(),
          v1::CalibrateModelRequest::descriptor()->file()};
}

TEST(AuthRulesTest, EveryMethodHasARuleWhoseFieldItsRequestHas) {
  std::vector<std::string> methods;
  for (const auto* file : ServiceFiles()) {
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      for (int m = 0; m < service->method_count(); ++m) {
        const auto* method = service->method(m);
        methods.push_back(method->full_name());
        const AccessRule* rule = FindAccessRule(method->full_name());
        ASSERT_NE(rule, nullptr) << method->full_name();
        if (rule->field.empty()) continue;
        const auto* message = method->input_type();
        if (rule->scope == AccessScope::kEachModel) {
          message = message->FindFieldByName("requests")->message_type();
        }
        EXPECT_NE(message->FindFieldByName(std::string(rule->field)), nullptr)
            << method->full_name();
      }
    }
  }
  std::vector<std::string> rules;
  for (const AccessRule& rule : AccessRules()) {
    rules.emplace_back(rule.method);
  }
  EXPECT_THAT(rules, UnorderedElementsAreArray(methods));
  EXPECT_EQ(FindAccessRule("ratequant.v1.RegistryService.Other"), nullptr);
}

TEST(AuthRulesTest, ModelsAreReadFromResourceNames) {
  EXPECT_EQ(ModelIdOf("models/a"), "a");
  EXPECT_EQ(ModelIdOf("models/a/bitMaps/b/evaluations/c"), "a");
  EXPECT_EQ(ModelIdOf("policies/a"), "");
  EXPECT_EQ(ModelIdOf("a"), "");
  v1::BatchGetBitMapsRequest batch;
  batch.add_requests()->set_model("models/a");
  batch.add_requests()->set_model("models/b");
  EXPECT_THAT(ModelsOf(*FindAccessRule(
                           "ratequant.v1.AllocationService.BatchGetBitMaps"),
                       batch),
              ElementsAre("a", "b"));
}

struct Wrong {
  const char* policy;
  const char* tokens;
  const char* named;
};

TEST(AuthPolicyTest, WhatIsWrongIsNamedAndNoTokenIs) {
  for (const Wrong& wrong : std::vector<Wrong>{
           {"", "", ""},
           {"{\"binding\": []}", "", "binding"},
           {R"({"bindings": [{"tokens": ["team"]}]})", kTokens,
            "bindings[0].role"},
           {R"({"bindings": [{"role": "OWNER"}]})", "", "OWNER"},
           {R"({"bindings": [{"role": 7, "tokens": ["team"]}]})", kTokens,
            "bindings[0].role"},
           {R"({"bindings": [{"role": "ADMIN"}]})", "", "names nobody"},
           {R"({"bindings": [{"role": "ADMIN", "tokens": ["other"]}]})",
            kTokens, "'other'"},
           {R"({"bindings": [{"role": "ADMIN", "spiffeIds": ["a/b"]}]})", "",
            "'a/b'"},
           {R"({"bindings": [{"role": "ADMIN", "spiffeIds": ["spiffe://*"]}]})",
            "", "'spiffe://*'"},
           {R"({"bindings": [{"role": "ADMIN",
                              "spiffeIds": ["spiffe://a/*/b"]}]})",
            "", "'spiffe://a/*/b'"},
           {R"({"bindings": [{"role": "ADMIN", "dnsNames": ["a"],
                              "modelPrefixes": [""]}]})",
            "", "modelPrefixes"},
           {"{}", "team\n", "line 1"},
           {"{}", "a 0123456789abcdef\nteam secret\n", "line 2"},
           {"{}", "a 0123456789abcdef\nb 0123456789abcdef\n", "twice"}}) {
    const auto parsed = AuthPolicy::Parse(wrong.policy, wrong.tokens);
    ASSERT_FALSE(parsed.ok()) << wrong.policy << wrong.tokens;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(parsed.status().message());
    EXPECT_THAT(message, HasSubstr(wrong.named));
    EXPECT_EQ(message.find("secret"), std::string::npos);
    EXPECT_EQ(message.find("0123456789abcdef"), std::string::npos);
  }
}

// Names of a caller with one binding of one pattern, and whether it is meant.
TEST(AuthPolicyTest, SpiffeIdsAreWholeOrBelow) {
  const auto policy = AuthPolicy::Parse(
      R"({"bindings": [{"role": "READER",
          "spiffeIds": ["spiffe://d/one", "spiffe://d/ns/*"]}]})",
      "");
  ASSERT_TRUE(policy.ok()) << policy.status();
  for (const auto& [id, meant] :
       std::vector<std::pair<std::string, bool>>{{"spiffe://d/one", true},
                                                 {"spiffe://d/one/two", false},
                                                 {"spiffe://d/on", false},
                                                 {"spiffe://d/ns/a/b", true},
                                                 {"spiffe://d/ns", false},
                                                 {"spiffe://d/nsx/a", false},
                                                 {"spiffe://e/ns/a", false},
                                                 {"", false}}) {
    Credentials credentials;
    credentials.spiffe_id = id;
    const auto caller = policy->Identify(credentials);
    ASSERT_TRUE(caller.ok());
    EXPECT_EQ(!caller->bindings.empty(), meant) << id;
    EXPECT_EQ(caller->authenticated, !id.empty());
  }
}

TEST(AuthPolicyTest, SeveralTokensMayHaveOneNameAndOthersAreRefused) {
  const auto policy = AuthPolicy::Parse(
      R"({"bindings": [{"role": "READER", "tokens": ["team"]}]})", kTokens);
  ASSERT_TRUE(policy.ok()) << policy.status();
  Credentials credentials;
  credentials.has_token = true;
  for (const char* token : {"0123456789abcdef", "fedcba9876543210"}) {
    credentials.token = token;
    const auto caller = policy->Identify(credentials);
    ASSERT_TRUE(caller.ok());
    EXPECT_EQ(caller->name, "token:team");
    EXPECT_EQ(caller->bindings.size(), 1u);
  }
  credentials.dns_names = {"good.example"};
  for (const char* token : {"", "0123456789abcdeF", "team"}) {
    credentials.token = token;
    EXPECT_EQ(policy->Identify(credentials).status().code(),
              absl::StatusCode::kUnauthenticated);
  }
}

}  // namespace
}  // namespace ratequant
