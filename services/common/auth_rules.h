#ifndef RATEQUANT_SERVICES_COMMON_AUTH_RULES_H_
#define RATEQUANT_SERVICES_COMMON_AUTH_RULES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/message.h"
#include "ratequant/v1/access_policy.pb.h"

namespace ratequant {

// Which models a caller must have the role for.
enum class AccessScope {
  kModel,      // the one that `field` of the request names
  kEachModel,  // those that `field` of each message of `requests` names
  kIdPrefix,   // all whose id begins with `field` of the request
  kAnyModel,   // any: the call is about no model and tells nothing of one
  kAllModels,  // all
  kStreamed,   // the one that a later message names
};

// What a call needs.
struct AccessRule {
  absl::string_view method;  // "ratequant.v1.RegistryService.GetModel"
  v1::AccessBinding::Role role = v1::AccessBinding::ADMIN;
  AccessScope scope = AccessScope::kAllModels;
  absl::string_view field = "";
};

// One rule for each method of this system's services, with the names of
// protobuf's descriptors. gRPC's own services, health and reflection, have
// none: anyone may call them.
absl::Span<const AccessRule> AccessRules();

// The rule of a method; null for one without, which must be refused then.
const AccessRule* FindAccessRule(absl::string_view method);

// Ids of the models a request is about, for kModel and kEachModel, or the
// prefix for kIdPrefix. A name that isn't one of a model, or of something below
// one, gives an empty id.
std::vector<std::string> ModelsOf(const AccessRule& rule,
                                  const google::protobuf::Message& request);

// The id in "models/{id}" or "models/{id}/...", else empty.
std::string ModelIdOf(absl::string_view resource);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_AUTH_RULES_H_
