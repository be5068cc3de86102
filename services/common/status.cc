#include "services/common/status.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace ratequant {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";
constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";

constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// HTTP/2 trailers are limited to 8 KiB by default; the message travels twice
// (once percent-encoded: up to three bytes for one), the details once in
// base64 (four bytes for three).
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailBytes = 2048;
constexpr size_t kMaxViolations = 16;
constexpr size_t kMaxDescriptionBytes = 160;
constexpr size_t kMaxFieldBytes = 80;

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

// Length of the UTF-8 sequence at `text[i]`, 0 when it isn't well-formed.
size_t Utf8Length(absl::string_view text, size_t i) {
  const uint8_t lead = static_cast<uint8_t>(text[i]);
  if (lead < 0x80) return 1;
  const size_t n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (n == 0 || lead > 0xF4 || i + n > text.size()) return 0;
  for (size_t k = 1; k < n; ++k) {
    if (!IsContinuation(text[i + k])) return 0;
  }
  const uint8_t second = static_cast<uint8_t>(text[i + 1]);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
      (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
    return 0;
  }
  return n;
}

bool IsUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = Utf8Length(text, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

// Valid UTF-8 of at most `limit` bytes, cut between characters.
std::string SafeText(absl::string_view text, size_t limit) {
  std::string safe = IsUtf8(text) ? std::string(text) : absl::CHexEscape(text);
  if (safe.size() <= limit) return safe;
  size_t end = limit - 3;
  while (end > 0 && IsContinuation(safe[end])) --end;
  safe.resize(end);
  return safe + "...";
}

template <typename Message>
std::optional<Message> Payload(const absl::Status& status, const char* url) {
  const absl::optional<absl::Cord> bytes = status.GetPayload(url);
  Message message;
  if (!bytes.has_value() || !message.ParseFromString(std::string(*bytes))) {
    return std::nullopt;
  }
  return message;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message,
                       const ErrorMetadata& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) {
    (*info.mutable_metadata())[SafeText(key, 64)] = SafeText(value, 512);
  }
  absl::Status status(code, message);
  status.SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status InvalidFields(absl::string_view reason,
                           const std::vector<FieldViolation>& violations,
                           const ErrorMetadata& metadata) {
  google::rpc::BadRequest request;
  for (const FieldViolation& violation : violations) {
    if (request.field_violations_size() == kMaxViolations) break;
    auto* out = request.add_field_violations();
    out->set_field(SafeText(violation.field, kMaxFieldBytes));
    out->set_description(SafeText(violation.description, kMaxDescriptionBytes));
  }
  std::string message =
      violations.empty()
          ? "invalid request"
          : absl::StrCat(violations[0].field, ": ", violations[0].description);
  if (violations.size() > 1) {
    absl::StrAppend(&message, " (and ", violations.size() - 1,
                    " more field violations)");
  }
  absl::Status status =
      MakeError(absl::StatusCode::kInvalidArgument, reason, message, metadata);
  status.SetPayload(kBadRequestUrl, absl::Cord(request.SerializeAsString()));
  return status;
}

absl::Status FieldError(absl::string_view reason, absl::string_view field,
                        absl::string_view description,
                        const ErrorMetadata& metadata) {
  return InvalidFields(reason, {{std::string(field), std::string(description)}},
                       metadata);
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&annotated](absl::string_view url, const absl::Cord& bytes) {
        annotated.SetPayload(url, bytes);
      });
  return annotated;
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo info;
  const int64_t seconds = absl::ToInt64Seconds(delay);
  info.mutable_retry_delay()->set_seconds(seconds);
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(delay - absl::Seconds(seconds))));
  status.SetPayload(kRetryInfoUrl, absl::Cord(info.SerializeAsString()));
  return status;
}

std::string ErrorReason(const absl::Status& status) {
  const auto info = Payload<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  return info.has_value() ? info->reason() : "";
}

ErrorMetadata ErrorInfoMetadata(const absl::Status& status) {
  const auto info = Payload<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  if (!info.has_value()) return {};
  return {info->metadata().begin(), info->metadata().end()};
}

std::vector<FieldViolation> FieldViolations(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto request = Payload<google::rpc::BadRequest>(status, kBadRequestUrl);
  if (!request.has_value()) return violations;
  for (const auto& violation : request->field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

google::rpc::Status ToProto(const absl::Status& status) {
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(SafeText(status.message(), kMaxMessageBytes));
  size_t detail_bytes = 0;
  const auto add = [&](absl::string_view url, const absl::Cord& bytes) {
    if (detail_bytes + bytes.size() > kMaxDetailBytes) return;
    detail_bytes += bytes.size();
    auto* any = wire.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(bytes));
  };
  // ErrorInfo first: it is what must never be dropped for lack of room.
  const absl::optional<absl::Cord> info = status.GetPayload(kErrorInfoUrl);
  if (info.has_value()) add(kErrorInfoUrl, *info);
  status.ForEachPayload([&add](absl::string_view url, const absl::Cord& bytes) {
    if (url == kErrorInfoUrl || url.substr(0, sizeof(kTypePrefix) - 1) !=
                                    absl::string_view(kTypePrefix)) {
      return;
    }
    add(url, bytes);
  });
  return wire;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToProto(status);
  return grpc::Status(static_cast<grpc::StatusCode>(wire.code()),
                      wire.message(), wire.SerializeAsString());
}

absl::Status FromProto(const google::rpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.code()),
                      status.message());
  for (const auto& detail : status.details()) {
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status wire;
  const bool detailed = wire.ParseFromString(status.error_details());
  if (!detailed) wire.Clear();
  wire.set_code(static_cast<int>(status.error_code()));
  wire.set_message(status.error_message());
  return FromProto(wire);
}

}  // namespace ratequant
