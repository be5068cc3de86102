#ifndef RATEQUANT_SERVICES_COMMON_STATUS_H_
#define RATEQUANT_SERVICES_COMMON_STATUS_H_

// The one place where absl::Status and gRPC statuses meet.
//
// Inside a service every failure is an absl::Status that carries the standard
// error details (google.rpc.ErrorInfo, google.rpc.BadRequest) as payloads under
// their type URL. ToGrpcStatus serialises them as google.rpc.Status into
// `grpc-status-details-bin`, where every gRPC language finds them.
//
// All functions are thread-safe.

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace ratequant {

// `domain` of every ErrorInfo this system makes.
inline constexpr char kErrorDomain[] = "ratequant";

using ErrorMetadata = std::map<std::string, std::string>;

// An error whose ErrorInfo has `reason` (UPPER_SNAKE_CASE, stable, part of the
// API) and `metadata`. `code` must not be OK.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message,
                       const ErrorMetadata& metadata = {});

// One wrong field: its path in the request ("budget.code_bits",
// "tables[2].widths") and what is wrong with it.
struct FieldViolation {
  std::string field;
  std::string description;
};

// INVALID_ARGUMENT with ErrorInfo `reason` and a BadRequest that lists
// `violations` (at least one). The message quotes the first and counts the
// others.
absl::Status InvalidFields(absl::string_view reason,
                           const std::vector<FieldViolation>& violations,
                           const ErrorMetadata& metadata = {});

// InvalidFields with one violation.
absl::Status FieldError(absl::string_view reason, absl::string_view field,
                        absl::string_view description,
                        const ErrorMetadata& metadata = {});

// `status` with its message preceded by "context: ". Payloads stay.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

// `status` with a google.rpc.RetryInfo: try again after `delay`.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// Reason of the ErrorInfo in `status`, empty when there is none.
std::string ErrorReason(const absl::Status& status);

// Metadata of the ErrorInfo in `status`, empty when there is none.
ErrorMetadata ErrorInfoMetadata(const absl::Status& status);

// Field violations of the BadRequest in `status`.
std::vector<FieldViolation> FieldViolations(const absl::Status& status);

// For handlers: what goes over the wire. Text that isn't UTF-8 is escaped, and
// message and details are cut to what fits in HTTP/2 trailers (clients refuse
// more than 8 KiB).
grpc::Status ToGrpcStatus(const absl::Status& status);

// For an error inside a response: the same, as a message.
google::rpc::Status ToProto(const absl::Status& status);

// For clients and tests: the inverse. A status without details keeps code and
// message.
absl::Status FromGrpcStatus(const grpc::Status& status);
absl::Status FromProto(const google::rpc::Status& status);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_STATUS_H_
