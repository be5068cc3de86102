#ifndef RATEQUANT_SERVICES_ALLOCATION_POLICY_TABLE_H_
#define RATEQUANT_SERVICES_ALLOCATION_POLICY_TABLE_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::allocation {

// The named policies in a store. They are few, so all are in memory too:
// queries that name one don't read.
//
// Thread-safe. Writes wait for each other, reads wait for nobody. Errors as the
// RPCs of RegistryService document them, and those of Store.
class PolicyTable {
 public:
  // Loads what `store` holds; it must outlive the table. `clock` gives
  // create_time. DATA_LOSS (STORE_CORRUPT) when a row can't be read.
  static absl::StatusOr<std::unique_ptr<PolicyTable>> Open(
      Store* store, std::function<absl::Time()> clock);

  // Stores a policy, synced, and answers with what is stored.
  absl::StatusOr<v1::NamedPolicy> Create(const std::string& id,
                                         const v1::Policy& policy);

  absl::StatusOr<v1::NamedPolicy> Get(const std::string& id) const;
  absl::StatusOr<v1::ListPoliciesResponse> List(
      const v1::ListPoliciesRequest& request) const;
  absl::Status Delete(const std::string& id);

  // A request with the content of the policy it names in place of the name.
  template <typename Request>
  absl::StatusOr<Request> Resolve(const Request& request) const {
    if (request.policy().ByteSizeLong() != 0) {
      return FieldError("INVALID_POLICY", "policy_name",
                        "can't be given together with `policy`");
    }
    const absl::StatusOr<std::string> id =
        ParsePolicyName(request.policy_name(), "policy_name");
    if (!id.ok()) return id.status();
    absl::StatusOr<v1::NamedPolicy> named = Get(*id);
    if (!named.ok()) return named.status();
    Request resolved = request;
    resolved.clear_policy_name();
    *resolved.mutable_policy() = std::move(*named->mutable_policy());
    return resolved;
  }

 private:
  PolicyTable(Store* store, std::function<absl::Time()> clock);

  Store* const store_;
  const std::function<absl::Time()> clock_;
  std::mutex write_mutex_;  // held over read-modify-write; before mutex_
  mutable std::shared_mutex mutex_;
  std::map<std::string, v1::NamedPolicy> policies_;  // by id, guarded by mutex_
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_POLICY_TABLE_H_
