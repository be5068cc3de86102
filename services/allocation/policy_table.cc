#include "services/allocation/policy_table.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/allocation/evidence.h"
#include "services/allocation/page.h"
#include "services/allocation/query.h"
#include "services/allocation/store/keys.h"
#include "services/allocation/timestamp.h"
#include "services/common/canonical.h"

namespace ratequant::allocation {
namespace {

constexpr size_t kMaxPolicies = 10000;

absl::Status PolicyNotFound(const std::string& id) {
  return MakeError(absl::StatusCode::kNotFound, "POLICY_NOT_FOUND",
                   absl::StrCat("no policy '", PolicyName(id), "'"),
                   {{"policy", PolicyName(id)}});
}

// The same for two policies that mean the same.
absl::StatusOr<std::string> Content(const v1::Policy& policy) {
  absl::StatusOr<std::string> bytes = CanonicalBytes(policy);
  if (bytes.ok()) return bytes;
  return FieldError("INVALID_POLICY", "policy", bytes.status().message());
}

}  // namespace

PolicyTable::PolicyTable(Store* store, std::function<absl::Time()> clock)
    : store_(store), clock_(std::move(clock)) {}

absl::StatusOr<std::unique_ptr<PolicyTable>> PolicyTable::Open(
    Store* store, std::function<absl::Time()> clock) {
  auto table =
      std::unique_ptr<PolicyTable>(new PolicyTable(store, std::move(clock)));
  std::string damaged;
  absl::Status scanned =
      store->Scan(Table::kCalibrations, kPolicyPrefix, "",
                  [&](absl::string_view key, absl::string_view value) {
                    v1::NamedPolicy policy;
                    if (!policy.ParseFromArray(
                            value.data(), static_cast<int>(value.size()))) {
                      damaged = std::string(key);
                      return false;
                    }
                    key.remove_prefix(sizeof(kPolicyPrefix) - 1);
                    table->policies_[std::string(key)] = std::move(policy);
                    return true;
                  });
  if (!scanned.ok()) return scanned;
  if (damaged.empty()) return table;
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("stored data is damaged: policy ", damaged));
}

absl::StatusOr<v1::NamedPolicy> PolicyTable::Create(const std::string& id,
                                                    const v1::Policy& policy) {
  absl::Status evidence = CheckEvidencePolicy(policy);
  if (!evidence.ok()) return evidence;
  const absl::StatusOr<v1::Policy> canonical = CanonicalPolicy(policy);
  if (!canonical.ok()) return canonical.status();
  const absl::StatusOr<std::string> content = Content(*canonical);
  if (!content.ok()) return content.status();

  std::lock_guard<std::mutex> write(write_mutex_);
  const absl::StatusOr<v1::NamedPolicy> before = Get(id);
  if (before.ok()) {
    const absl::StatusOr<std::string> stored = Content(before->policy());
    if (stored.ok() && *stored == *content) return before;
    return MakeError(absl::StatusCode::kAlreadyExists, "POLICY_EXISTS",
                     absl::StrCat(PolicyName(id),
                                  " exists with other content; choose "
                                  "another name, or delete it first"),
                     {{"policy", PolicyName(id)}});
  }
  if (policies_.size() >= kMaxPolicies) {
    return MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_POLICIES",
                     absl::StrCat("there are ", kMaxPolicies,
                                  " policies, the most that are kept; delete "
                                  "one first"),
                     {{"maximum", absl::StrCat(kMaxPolicies)}});
  }
  v1::NamedPolicy named;
  named.set_name(PolicyName(id));
  *named.mutable_policy() = *canonical;
  SetTime(clock_(), named.mutable_create_time());
  absl::Status written = store_->Write(
      {{Table::kCalibrations, PolicyKey(id), named.SerializeAsString()}},
      Durability::kSynced);
  if (!written.ok()) return written;
  std::unique_lock<std::shared_mutex> lock(mutex_);
  policies_[id] = named;
  return named;
}

absl::StatusOr<v1::NamedPolicy> PolicyTable::Get(const std::string& id) const {
  std::shared_lock<std::shared_mutex> lock(mutex_);
  const auto found = policies_.find(id);
  if (found == policies_.end()) return PolicyNotFound(id);
  return found->second;
}

absl::StatusOr<v1::ListPoliciesResponse> PolicyTable::List(
    const v1::ListPoliciesRequest& request) const {
  return ListRows<v1::ListPoliciesResponse>(
      *store_, Table::kCalibrations, kPolicyPrefix, "ListPolicies",
      request.page_size(), request.page_token(),
      [](v1::ListPoliciesResponse* page) { return page->mutable_policies(); },
      [](const v1::NamedPolicy&) { return true; });
}

absl::Status PolicyTable::Delete(const std::string& id) {
  std::lock_guard<std::mutex> write(write_mutex_);
  absl::Status found = Get(id).status();
  if (!found.ok()) return found;
  absl::Status written =
      store_->Write({{Table::kCalibrations, PolicyKey(id), std::nullopt}},
                    Durability::kSynced);
  if (!written.ok()) return written;
  std::unique_lock<std::shared_mutex> lock(mutex_);
  policies_.erase(id);
  return absl::OkStatus();
}

}  // namespace ratequant::allocation
