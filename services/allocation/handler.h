#ifndef RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_
#define RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_

#include <utility>

#include "absl/status/status.h"
#include "grpcpp/impl/codegen/server_callback.h"
#include "grpcpp/impl/codegen/server_context.h"
#include "services/allocation/executor.h"
#include "services/common/status.h"

namespace ratequant::allocation {

inline absl::Status CallCancelled() {
  return absl::CancelledError("call cancelled");
}

// Answers a unary call on the executor: `handle` is called with request and
// response and returns an absl::Status. A call that was cancelled while it
// waited isn't handled.
template <typename Request, typename Response, typename Handle>
void HandleOn(Executor* executor, grpc::CallbackServerContext* context,
              grpc::ServerUnaryReactor* reactor, const Request* request,
              Response* response, Handle handle) {
  const bool posted = executor->Post([=, handle = std::move(handle)] {
    if (context->IsCancelled()) {
      reactor->Finish(ToGrpcStatus(CallCancelled()));
      return;
    }
    reactor->Finish(ToGrpcStatus(handle(*request, response)));
  });
  if (!posted) {
    reactor->Finish(
        ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable, "SERVER_BUSY",
                               "too many calls are waiting; try again later")));
  }
}

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_HANDLER_H_
