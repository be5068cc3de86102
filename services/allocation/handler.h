#ifndef RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_
#define RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/impl/codegen/server_callback.h"
#include "grpcpp/impl/codegen/server_context.h"
#include "services/allocation/executor.h"
#include "services/common/call_gate.h"
#include "services/common/status.h"
#include "services/common/trace.h"

namespace ratequant::allocation {

inline absl::Status CallCancelled() {
  return absl::CancelledError("call cancelled");
}

// What every handler of the allocator goes through.
struct CallPath {
  CallGate* gate = nullptr;
  Executor* executor = nullptr;

  // Work that has waited for longer is dropped: a call without a deadline has
  // this one.
  absl::Duration max_wait = absl::Minutes(1);
};

inline absl::Status ServerBusy() {
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                "too many calls are waiting; try again later"),
      absl::Milliseconds(500));
}

inline absl::Status WaitedTooLong(absl::Duration max_wait) {
  return MakeError(
      absl::StatusCode::kDeadlineExceeded, "WAITED_TOO_LONG",
      absl::StrCat("the call waited for ", absl::FormatDuration(max_wait),
                   " without its turn; set a deadline"));
}

// Answers a unary call that was let in on the executor: `handle` is called with
// request and response and returns an absl::Status. A call that was cancelled
// while it waited isn't handled.
template <typename Request, typename Response, typename Handle>
void HandleAdmitted(const CallPath& path, const AdmittedCall& call,
                    grpc::CallbackServerContext* context,
                    grpc::ServerUnaryReactor* reactor, const Request* request,
                    Response* response, Handle handle) {
  auto place = call.Enter();
  if (!place.ok()) {
    reactor->Finish(ToGrpcStatus(place.status()));
    return;
  }
  const auto run = [=, place = *std::move(place), came = absl::Now(),
                    max_wait = path.max_wait, handle = std::move(handle)] {
    const CallScope scope(CallIdsOf(*context));
    if (context->IsCancelled()) {
      reactor->Finish(ToGrpcStatus(CallCancelled()));
    } else if (absl::Now() - came > max_wait) {
      reactor->Finish(ToGrpcStatus(WaitedTooLong(max_wait)));
    } else {
      reactor->Finish(ToGrpcStatus(handle(*request, response)));
    }
  };
  if (path.executor->Post(run)) return;
  reactor->Finish(ToGrpcStatus(call.Refuse(ServerBusy())));
}

// Lets a unary call of `method` in and answers it, or refuses it.
template <typename Request, typename Response, typename Handle>
void HandleOn(const CallPath& path, absl::string_view method,
              grpc::CallbackServerContext* context,
              grpc::ServerUnaryReactor* reactor, const Request* request,
              Response* response, Handle handle) {
  const auto call = path.gate->Admit(*context, method, request);
  if (!call.ok()) {
    reactor->Finish(ToGrpcStatus(call.status()));
    return;
  }
  HandleAdmitted(path, *call, context, reactor, request, response,
                 std::move(handle));
}

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_
