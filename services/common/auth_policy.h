#ifndef RATEQUANT_SERVICES_COMMON_AUTH_POLICY_H_
#define RATEQUANT_SERVICES_COMMON_AUTH_POLICY_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "ratequant/v1/access_policy.pb.h"
#include "services/common/auth_identity.h"
#include "services/common/auth_rules.h"

namespace ratequant {

// Who a caller is and what it was given.
struct Caller {
  // "spiffe://…", "dns:NAME", "token:NAME", joined by "+" when there are
  // several; "anonymous" without credentials.
  std::string name = "anonymous";
  bool authenticated = false;
  std::vector<const v1::AccessBinding*> bindings;  // the policy's
};

// An access policy with the tokens it names. Immutable, thread-safe.
class AuthPolicy {
 public:
  // `policy` is a v1::AccessPolicy as JSON; `tokens` has a line "NAME TOKEN"
  // for each token, at least 16 characters, and comments after '#'.
  // INVALID_ARGUMENT (INVALID_AUTH_POLICY, INVALID_AUTH_TOKENS) says where and
  // what; never a token.
  static absl::StatusOr<AuthPolicy> Parse(const std::string& policy,
                                          const std::string& tokens);

  // The caller with these credentials. UNAUTHENTICATED for a token that isn't
  // known, also beside a good certificate.
  absl::StatusOr<Caller> Identify(const Credentials& credentials) const;

 private:
  v1::AccessPolicy policy_;
  std::map<std::string, std::string> tokens_;  // SHA-256 to name
};

// Whether a caller's bindings allow a call with these models (ModelsOf); says
// nothing of why not.
bool Allows(const Caller& caller, const AccessRule& rule,
            const std::vector<std::string>& models);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_AUTH_POLICY_H_
