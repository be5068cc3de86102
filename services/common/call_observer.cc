#include "services/common/call_observer.h"

#include <array>
#include <chrono>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "services/common/logging.h"
#include "services/common/metrics.h"
#include "services/common/status.h"
#include "services/common/trace.h"
#include "spdlog/spdlog.h"

namespace ratequant {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using Clock = std::chrono::steady_clock;

constexpr int kCodes = 17;  // OK to UNAUTHENTICATED

// Metrics of one method. Looking up a metric costs more than counting, so each
// is looked up once.
struct MethodMetrics {
  explicit MethodMetrics(std::string method_name)
      : name(std::move(method_name)),
        started(Metrics::Get().Counter("grpc_server_call_started_total",
                                       "Calls that began",
                                       {{"grpc_method", name}})) {
    Durations(grpc::StatusCode::OK);
  }

  prometheus::Histogram& Durations(grpc::StatusCode code) {
    const int index = code >= 0 && code < kCodes ? code : grpc::UNKNOWN;
    prometheus::Histogram* known = durations[index].load();
    if (known == nullptr) {
      known = &Metrics::Get().Durations(
          "grpc_server_call_duration_seconds",
          "Time from a call's start to its status",
          {{"grpc_method", name},
           {"grpc_status",
            absl::StatusCodeToString(static_cast<absl::StatusCode>(index))}});
      durations[index] = known;
    }
    return *known;
  }

  const std::string name;
  prometheus::Counter& started;
  std::array<std::atomic<prometheus::Histogram*>, kCodes> durations = {};
};

// Calls that change nothing and may be very many.
bool OnlyReads(absl::string_view method) {
  const absl::string_view name = method.substr(method.rfind('/') + 1);
  for (const char* verb : {"Get", "List", "Watch", "Batch"}) {
    if (absl::StartsWith(name, verb)) return true;
  }
  return false;
}

spdlog::level::level_enum LevelOf(grpc::StatusCode code,
                                  absl::string_view method) {
  switch (code) {
    case grpc::OK:
      return OnlyReads(method) ? spdlog::level::debug : spdlog::level::info;
    case grpc::INTERNAL:
    case grpc::UNKNOWN:
    case grpc::DATA_LOSS:
      return spdlog::level::err;
    case grpc::DEADLINE_EXCEEDED:
      return spdlog::level::warn;
    case grpc::CANCELLED:
    case grpc::RESOURCE_EXHAUSTED:  // a line each would make overload worse
      return spdlog::level::debug;
    default:
      return spdlog::level::info;
  }
}

class ObservedCall : public grpc::experimental::Interceptor {
 public:
  ObservedCall(std::shared_ptr<std::atomic<int>> active, MethodMetrics* metrics,
               grpc::experimental::ServerRpcInfo* info)
      : active_(std::move(active)),
        metrics_(metrics),
        info_(info),
        begin_(Clock::now()) {
    ++*active_;
    metrics_->started.Increment();
  }

  ~ObservedCall() override {
    // A call that broke before it had a status.
    if (!ended_) Count(grpc::StatusCode::CANCELLED);
    --*active_;
  }

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      TakeIds(methods->GetRecvInitialMetadata());
    }
    if (methods->QueryInterceptionHookPoint(
            InterceptionHookPoints::PRE_SEND_STATUS)) {
      End(methods);
    }
    methods->Proceed();
  }

 private:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  static absl::string_view Find(const Metadata& metadata, const char* key) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) return "";
    return absl::string_view(found->second.data(), found->second.size());
  }

  // Handlers see the ids among the client's metadata.
  void TakeIds(Metadata* metadata) {
    if (metadata == nullptr) return;
    if (!IsRequestId(Find(*metadata, kRequestIdKey))) {
      request_id_ = RandomHex(32);
      Replace(metadata, kRequestIdKey, request_id_);
    }
    const absl::string_view parent = Find(*metadata, kTraceParentKey);
    if (parent.empty()) return;
    auto trace = ParseTraceParent(parent);
    if (!trace.has_value()) {
      metadata->erase(kTraceParentKey);
      return;
    }
    caller_span_ = std::exchange(trace->parent_id, RandomHex(16));
    trace_parent_ = trace->ToString();
    Replace(metadata, kTraceParentKey, trace_parent_);
  }

  static void Replace(Metadata* metadata, const char* key,
                      const std::string& value) {
    metadata->erase(key);
    metadata->emplace(key, value);
  }

  void End(InterceptorBatchMethods* methods) {
    const grpc::Status status = methods->GetSendStatus();
    const double seconds = Count(status.error_code());
    const auto level = LevelOf(status.error_code(), metrics_->name);
    const bool logged = spdlog::should_log(level);
    if (status.ok() && !logged) return;
    CallIds ids = CallIdsOf(*info_->server_context());
    if (!status.ok()) {
      methods->GetSendTrailingMetadata()->emplace(kRequestIdKey,
                                                  ids.request_id);
    }
    if (logged) Log(level, status, seconds, std::move(ids));
  }

  double Count(grpc::StatusCode code) {
    ended_ = true;
    const double seconds =
        std::chrono::duration<double>(Clock::now() - begin_).count();
    metrics_->Durations(code).Observe(seconds);
    return seconds;
  }

  void Log(spdlog::level::level_enum level, const grpc::Status& status,
           double seconds, CallIds ids) {
    const std::string code = absl::StatusCodeToString(
        static_cast<absl::StatusCode>(status.error_code()));
    const std::string reason = ErrorReason(FromGrpcStatus(status));
    const std::string peer = info_->server_context()->peer();
    const CallScope scope(std::move(ids));
    const LogFields fields({{"method", metrics_->name},
                            {"code", code},
                            {"reason", reason},
                            {"parent_span_id", caller_span_},
                            {"peer", peer}},
                           {{"seconds", seconds}});
    // Clients choose what messages quote.
    spdlog::log(level, "{} {}{}{} in {:.3f} ms{}{}", metrics_->name, code,
                reason.empty() ? "" : " ", reason, seconds * 1e3,
                status.ok() ? "" : ": ",
                absl::Utf8SafeCHexEscape(status.error_message()));
  }

  const std::shared_ptr<std::atomic<int>> active_;
  MethodMetrics* const metrics_;
  grpc::experimental::ServerRpcInfo* const info_;
  const Clock::time_point begin_;
  bool ended_ = false;
  std::string request_id_;    // made here
  std::string trace_parent_;  // with this call's own span
  std::string caller_span_;
};

}  // namespace

struct CallObserver::Methods {
  // By "/package.Service/Method". Not changed once the server runs.
  absl::flat_hash_map<std::string, std::unique_ptr<MethodMetrics>> known;
  MethodMetrics other{"other"};
};

CallObserver::CallObserver(const std::vector<std::string>& services)
    : active_(std::make_shared<std::atomic<int>>(0)),
      methods_(std::make_unique<Methods>()) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const std::string& name : services) {
    const auto* service = pool->FindServiceByName(name);
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
      const std::string method =
          absl::StrCat(name, "/", service->method(i)->name());
      methods_->known["/" + method] = std::make_unique<MethodMetrics>(method);
    }
  }
}

CallObserver::~CallObserver() = default;

grpc::experimental::Interceptor* CallObserver::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  if (absl::StartsWith(info->method(), "/grpc.")) return nullptr;
  const auto found = methods_->known.find(absl::string_view(info->method()));
  MethodMetrics* const metrics =
      found == methods_->known.end() ? &methods_->other : found->second.get();
  return new ObservedCall(active_, metrics, info);
}

}  // namespace ratequant
