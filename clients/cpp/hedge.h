#ifndef RATEQUANT_CLIENTS_CPP_HEDGE_H_
#define RATEQUANT_CLIENTS_CPP_HEDGE_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/retry.h"
#include "grpcpp/client_context.h"

namespace ratequant::client {

// A call to one of several servers that answer alike. Called once for each
// server at most, for different ones at the same time.
using ReplicaCall =
    std::function<absl::Status(int replica, grpc::ClientContext* context)>;

// Asks server `first` of `replicas` and, going round, the next one whenever
// `delay` passed without an answer, or a call failed and IsTransient. Returns
// the server that answered OK first, or the first other failure, or when all
// failed so the last one's status. The other calls are cancelled, and
// have ended when this returns; `cancellation`, which may be null, cancels all.
absl::StatusOr<int> FirstAnswer(int replicas, int first, absl::Duration delay,
                                const Environment& environment,
                                Cancellation* cancellation,
                                const ReplicaCall& call);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_HEDGE_H_
