#ifndef RATEQUANT_CLIENTS_CPP_STATUS_H_
#define RATEQUANT_CLIENTS_CPP_STATUS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace ratequant::client {

// Which server a status came from.
enum class Server { kUnknown, kAllocator, kWorker };

// "allocator", "worker" or "server".
absl::string_view ServerName(Server server);

// One wrong field of a request (google.rpc.BadRequest.FieldViolation).
struct FieldViolation {
  std::string field;
  std::string description;

  friend bool operator==(const FieldViolation&,
                         const FieldViolation&) = default;
};

// The status of a finished call: same code and message, every detail the server
// attached (google.rpc.ErrorInfo, BadRequest, ...) kept as a payload under its
// type URL. Details that can't be parsed are dropped.
absl::Status FromGrpcStatus(const grpc::Status& status);

// The stable reason the server gave (google.rpc.ErrorInfo.reason), for example
// "MODEL_NOT_FOUND"; empty when there is none.
std::string ErrorReason(const absl::Status& status);

// The values that belong to the reason (google.rpc.ErrorInfo.metadata).
std::map<std::string, std::string> ErrorMetadata(const absl::Status& status);

// The fields that are wrong, in the server's order; empty when none is named.
std::vector<FieldViolation> FieldViolations(const absl::Status& status);

// True when no server gave this answer: there was no connection, it broke, or
// no answer came before the deadline.
bool IsUnreachable(const absl::Status& status);

// How long an overloaded server asks to wait before the next attempt
// (google.rpc.RetryInfo); nullopt when it doesn't say.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// Whether the same call may succeed soon: UNAVAILABLE, or RESOURCE_EXHAUSTED
// with a RetryDelay.
bool IsTransient(const absl::Status& status);

// The server the call went to; kUnknown for a status that no call made.
Server StatusServer(const absl::Status& status);

// Records the server in `status`, which must not be OK.
void SetStatusServer(absl::Status& status, Server server);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_STATUS_H_
