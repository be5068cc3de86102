#ifndef RATEQUANT_SERVICES_COMMON_TRACE_H_
#define RATEQUANT_SERVICES_COMMON_TRACE_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "grpcpp/impl/codegen/server_context.h"

namespace ratequant {

// Metadata keys. A client may give a request id of 1 to 128 visible ASCII
// characters; anything else, and none, gets one made here.
inline constexpr char kRequestIdKey[] = "x-request-id";
inline constexpr char kTraceParentKey[] = "traceparent";
inline constexpr char kTraceStateKey[] = "tracestate";

// A W3C trace context (https://www.w3.org/TR/trace-context/), in lower-case
// hexadecimal.
struct TraceParent {
  std::string trace_id;   // 32 digits
  std::string parent_id;  // 16 digits: the span that calls
  std::string flags;      // 2 digits

  // "00-{trace_id}-{parent_id}-{flags}".
  std::string ToString() const;
};

// nullopt for what isn't one. Later versions are read as version 00, as the
// standard asks.
std::optional<TraceParent> ParseTraceParent(absl::string_view text);

bool IsRequestId(absl::string_view text);

// Random lower-case hexadecimal digits. Not for secrets.
std::string RandomHex(int digits);

// What names a call in logs, and goes along with calls made for it.
struct CallIds {
  std::string request_id;
  std::optional<TraceParent> trace;  // parent_id is this server's own span
  std::string trace_state;

  // As metadata of a call made for this one.
  std::vector<std::pair<std::string, std::string>> Metadata() const;
};

// The ids of a call on a server whose calls are observed (call_observer.h).
CallIds CallIdsOf(const grpc::ServerContextBase& context);

// While it lives, lines that this thread logs name the call, and CurrentCall
// answers with it. Scopes of one thread nest.
class CallScope {
 public:
  explicit CallScope(CallIds ids);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  const CallIds ids_;
  const CallIds* const outer_;
};

// The call that this thread works on; null when none.
const CallIds* CurrentCall();

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_TRACE_H_
