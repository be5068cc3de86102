#include "services/common/call_gate.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/auth_identity.h"
#include "services/common/metrics.h"
#include "services/common/status.h"
#include "services/common/trace.h"
#include "spdlog/spdlog.h"

namespace ratequant {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     absl::string_view reason) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)),
                   std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason,
                     "cannot be read", {{"path", path}});
  }
  return text;
}

// A caller chose this text: it can't break the log's lines, or fill it.
std::string Loggable(absl::string_view text) {
  std::string line(text.substr(0, 200));
  std::replace_if(
      line.begin(), line.end(),
      [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return line;
}

}  // namespace

std::string AdmittedCall::client() const {
  return absl::StrCat(caller_.name, "@", HostOf(context_->peer()));
}

absl::Status AdmittedCall::Refuse(absl::Status refusal) const {
  return gate_->Refuse(rule_->method, std::move(refusal));
}

absl::StatusOr<CallPlace> AdmittedCall::Enter() const {
  absl::StatusOr<CallPlace> place = gate_->meter_.Enter(client());
  if (!place.ok()) return Refuse(place.status());
  return place;
}

absl::Status AdmittedCall::CheckModel(absl::string_view resource) const {
  if (policy_ == nullptr) return absl::OkStatus();
  const AccessRule rule = {.method = rule_->method,
                           .role = rule_->role,
                           .scope = AccessScope::kModel};
  const std::string model = ModelIdOf(resource);
  if (Allows(caller_, rule, {model})) return absl::OkStatus();
  return gate_->Deny(*this, absl::StatusCode::kPermissionDenied,
                     absl::StrCat("no binding for model '", model, "'"));
}

absl::StatusOr<std::unique_ptr<CallGate>> CallGate::Open(
    const CallGateOptions& options) {
  std::unique_ptr<CallGate> gate(new CallGate(options));
  if (options.policy_file.empty()) {
    if (options.token_file.empty()) return gate;
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_AUTH_TOKENS",
                     "a token file needs an access policy that names its "
                     "tokens; give --auth-policy");
  }
  bool changed = false;
  absl::Status loaded = gate->Load(&changed);
  if (!loaded.ok()) return loaded;
  gate->watcher_ = std::thread([raw = gate.get()] { raw->Watch(); });
  return gate;
}

CallGate::CallGate(const CallGateOptions& options)
    : options_(options),
      meter_(options.limits),
      samples_(Metrics::Get().Sample([this](MetricSamples* out) {
        for (const auto& [what, count] : refusals()) {
          out->Counter("ratequant_calls_refused_total",
                       "Calls that were not let in", static_cast<double>(count),
                       {{"grpc_method", what.first}, {"reason", what.second}});
        }
      })) {}

CallGate::~CallGate() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

absl::StatusOr<AdmittedCall> CallGate::Admit(
    const grpc::ServerContextBase& context, absl::string_view method,
    const google::protobuf::Message* request) {
  AdmittedCall call;
  call.gate_ = this;
  call.context_ = &context;
  call.rule_ = FindAccessRule(method);
  if (call.rule_ == nullptr) {
    return Refuse(method, MakeError(absl::StatusCode::kPermissionDenied,
                                    "ACCESS_DENIED", "not allowed"));
  }
  absl::Status authorized = Authorize(request, &call);
  if (meter_.limits().rate > 0) {
    // Refused calls count as well: else nothing would slow down a guesser.
    absl::Status counted = meter_.Count(call.client());
    if (!counted.ok()) return Refuse(method, std::move(counted));
  }
  if (!authorized.ok()) return authorized;
  return call;
}

absl::Status CallGate::Authorize(const google::protobuf::Message* request,
                                 AdmittedCall* call) {
  if (options_.policy_file.empty()) return absl::OkStatus();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    call->policy_ = policy_;
  }
  auto caller = call->policy_->Identify(CredentialsOf(*call->context_));
  if (!caller.ok()) {
    return Deny(*call, absl::StatusCode::kUnauthenticated,
                caller.status().message());
  }
  call->caller_ = *std::move(caller);
  const AccessRule& rule = *call->rule_;
  const std::vector<std::string> models = request == nullptr
                                              ? std::vector<std::string>()
                                              : ModelsOf(rule, *request);
  if (Allows(call->caller_, rule, models)) return absl::OkStatus();
  if (!call->caller_.authenticated) {
    return Deny(*call, absl::StatusCode::kUnauthenticated, "no credentials");
  }
  return Deny(
      *call, absl::StatusCode::kPermissionDenied,
      absl::StrCat("no binding with ", v1::AccessBinding::Role_Name(rule.role),
                   " for '", absl::StrJoin(models, " "), "'"));
}

absl::Status CallGate::Deny(const AdmittedCall& call, absl::StatusCode code,
                            absl::string_view why) {
  const CallScope scope(CallIdsOf(*call.context_));
  spdlog::warn("denied {} to {}: {}", std::string(call.rule_->method),
               Loggable(call.client()), Loggable(why));
  const bool unknown = code == absl::StatusCode::kUnauthenticated;
  return Refuse(call.rule_->method,
                MakeError(code, unknown ? "UNAUTHENTICATED" : "ACCESS_DENIED",
                          unknown ? "credentials are missing or not known"
                                  : "not allowed"));
}

absl::Status CallGate::Refuse(absl::string_view method, absl::Status refusal) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++refusals_[{std::string(method), ErrorReason(refusal)}];
  return refusal;
}

absl::Status CallGate::Load(bool* changed) {
  const std::string policy_name =
      absl::StrCat("--auth-policy ", options_.policy_file);
  const std::string token_name =
      absl::StrCat("--auth-tokens ", options_.token_file);
  auto policy = ReadFile(options_.policy_file, "INVALID_AUTH_POLICY");
  if (!policy.ok()) return Annotate(policy.status(), policy_name);
  absl::StatusOr<std::string> tokens = std::string();
  if (!options_.token_file.empty()) {
    tokens = ReadFile(options_.token_file, "INVALID_AUTH_TOKENS");
    if (!tokens.ok()) return Annotate(tokens.status(), token_name);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    *changed =
        policy_ == nullptr || *policy != policy_text_ || *tokens != token_text_;
    if (!*changed) return absl::OkStatus();
    policy_text_ = *policy;
    token_text_ = *tokens;
  }
  auto parsed = AuthPolicy::Parse(*policy, *tokens);
  if (!parsed.ok()) {
    const bool token = ErrorReason(parsed.status()) == "INVALID_AUTH_TOKENS";
    return Annotate(parsed.status(), token ? token_name : policy_name);
  }
  auto next = std::make_shared<const AuthPolicy>(*std::move(parsed));
  const std::lock_guard<std::mutex> lock(mutex_);
  policy_ = std::move(next);
  return absl::OkStatus();
}

bool CallGate::Reload() {
  bool changed = false;
  const absl::Status loaded = Load(&changed);
  if (!loaded.ok()) {
    spdlog::error("the access policy before stays: {}",
                  std::string(loaded.message()));
    return false;
  }
  if (changed) spdlog::info("read {} again", options_.policy_file);
  return changed;
}

void CallGate::Watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_.wait_for(lock, options_.reload_interval,
                            [this] { return stopping_; })) {
    lock.unlock();
    Reload();
    lock.lock();
  }
}

CallGate::RefusalCounts CallGate::refusals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return refusals_;
}

}  // namespace ratequant
