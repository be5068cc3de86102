#ifndef RATEQUANT_SERVICES_COMMON_CALL_GATE_H_
#define RATEQUANT_SERVICES_COMMON_CALL_GATE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grpcpp/impl/codegen/server_context.h"
#include "services/common/auth_policy.h"
#include "services/common/auth_rules.h"
#include "services/common/limits.h"

namespace ratequant {

struct CallGateOptions {
  std::string policy_file;  // see AuthPolicy; empty: everyone may do everything
  std::string token_file;   // empty: there are no tokens
  std::chrono::milliseconds reload_interval = std::chrono::seconds(10);
  ClientLimits limits;
};

class CallGate;

// A call that was let in. Copyable; to be used while the call lasts, and the
// gate.
class AdmittedCall {
 public:
  // Tells clients apart, for limits and turns: the caller's name and host.
  std::string client() const;

  // `refusal`, counted; for what refuses the call beyond the gate.
  absl::Status Refuse(absl::Status refusal) const;

  // Takes a place for work on the call. RESOURCE_EXHAUSTED (TOO_MANY_CALLS).
  absl::StatusOr<CallPlace> Enter() const;

  // For a call whose model comes in a later message: PERMISSION_DENIED
  // (ACCESS_DENIED) unless it is one that the caller may use. `resource` is
  // "models/{model}".
  absl::Status CheckModel(absl::string_view resource) const;

 private:
  friend class CallGate;

  CallGate* gate_ = nullptr;
  const grpc::ServerContextBase* context_ = nullptr;
  const AccessRule* rule_ = nullptr;
  std::shared_ptr<const AuthPolicy> policy_;  // what caller_ points into
  Caller caller_;
};

// The one way into every handler: who calls, whether they may, and whether they
// call too much. Handlers ask before they do anything. Every refusal is
// counted, and those for want of permission are logged; the caller hears no
// more than that it is refused.
//
// Thread-safe. Outlives the services that use it.
class CallGate {
 public:
  // Reads the files, and again when they change: a policy that isn't right is
  // logged, and the one before stays. Errors of AuthPolicy::Parse, naming the
  // file; INVALID_ARGUMENT (INVALID_AUTH_POLICY) for one that can't be read.
  static absl::StatusOr<std::unique_ptr<CallGate>> Open(
      const CallGateOptions& options);

  // Lets everyone do everything, with the limits that are set by default.
  CallGate() : CallGate(CallGateOptions()) {}

  ~CallGate();
  CallGate(const CallGate&) = delete;
  CallGate& operator=(const CallGate&) = delete;

  // Lets a call of `method` ("ratequant.v1.RegistryService.GetModel") in.
  // `request` is null when the call's first message is still to come.
  //
  // UNAUTHENTICATED (UNAUTHENTICATED) without credentials that are known;
  // PERMISSION_DENIED (ACCESS_DENIED) when no binding allows it, whether or not
  // what is named exists; RESOURCE_EXHAUSTED (RATE_LIMITED).
  absl::StatusOr<AdmittedCall> Admit(const grpc::ServerContextBase& context,
                                     absl::string_view method,
                                     const google::protobuf::Message* request);

  // Reads the files now. True when what they say has changed and is in force.
  bool Reload();

  // How often each method was refused, by reason.
  using RefusalCounts = std::map<std::pair<std::string, std::string>, int64_t>;
  RefusalCounts refusals() const;

 private:
  friend class AdmittedCall;

  explicit CallGate(const CallGateOptions& options);

  absl::Status Authorize(const google::protobuf::Message* request,
                         AdmittedCall* call);
  absl::Status Deny(const AdmittedCall& call, absl::StatusCode code,
                    absl::string_view why);
  absl::Status Refuse(absl::string_view method, absl::Status refusal);
  absl::Status Load(bool* changed);
  void Watch();

  const CallGateOptions options_;
  ClientMeter meter_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::shared_ptr<const AuthPolicy> policy_;  // null: everyone, everything
  std::string policy_text_, token_text_;      // what was read last
  RefusalCounts refusals_;
  bool stopping_ = false;
  std::condition_variable stopped_;
  const std::shared_ptr<void> samples_;
  std::thread watcher_;  // only with a policy
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CALL_GATE_H_
