#include "clients/cpp/status.h"

#include <optional>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace ratequant::client {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";
constexpr char kServerUrl[] = "ratequant.client/server";

template <typename Message>
std::optional<Message> Detail(const absl::Status& status, const char* url) {
  absl::optional<absl::Cord> payload = status.GetPayload(url);
  Message message;
  if (!payload.has_value() || !message.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return message;
}

}  // namespace

absl::string_view ServerName(Server server) {
  switch (server) {
    case Server::kAllocator:
      return "allocator";
    case Server::kWorker:
      return "worker";
    case Server::kUnknown:
      break;
  }
  return "server";
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // gRPC and absl number the codes alike.
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& detail : details.details()) {
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

std::string ErrorReason(const absl::Status& status) {
  auto info = Detail<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  return info.has_value() ? info->reason() : "";
}

std::map<std::string, std::string> ErrorMetadata(const absl::Status& status) {
  auto info = Detail<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  if (!info.has_value()) return {};
  return {info->metadata().begin(), info->metadata().end()};
}

std::vector<FieldViolation> FieldViolations(const absl::Status& status) {
  auto bad = Detail<google::rpc::BadRequest>(status, kBadRequestUrl);
  std::vector<FieldViolation> violations;
  if (!bad.has_value()) return violations;
  for (const auto& violation : bad->field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

bool IsUnreachable(const absl::Status& status) {
  // A server that answers says why: UNAVAILABLE with a reason is its answer.
  return (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) &&
         ErrorReason(status).empty();
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto info = Detail<google::rpc::RetryInfo>(status, kRetryInfoUrl);
  if (!info.has_value()) return std::nullopt;
  return absl::Seconds(info->retry_delay().seconds()) +
         absl::Nanoseconds(info->retry_delay().nanos());
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) ||
         (absl::IsResourceExhausted(status) && RetryDelay(status).has_value());
}

Server StatusServer(const absl::Status& status) {
  absl::optional<absl::Cord> payload = status.GetPayload(kServerUrl);
  if (!payload.has_value()) return Server::kUnknown;
  return *payload == ServerName(Server::kWorker) ? Server::kWorker
                                                 : Server::kAllocator;
}

void SetStatusServer(absl::Status& status, Server server) {
  status.SetPayload(kServerUrl, absl::Cord(ServerName(server)));
}

}  // namespace ratequant::client
