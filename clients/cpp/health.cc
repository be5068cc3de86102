#include "clients/cpp/health.h"

#include <string>

#include "clients/cpp/status.h"
#include "grpc/grpc_security_constants.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"

namespace ratequant::client {
namespace {

// grpc.health.v1.HealthCheckResponse{status: SERVING}: field 1, varint 1.
constexpr char kServing[] = "\x08\x01";

std::string Bytes(grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) return "";
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

// Of the server, once a call has ended.
std::string PeerCertificate(const grpc::ClientContext& context) {
  const auto peer = context.auth_context();
  if (peer == nullptr) return "";
  const auto values =
      peer->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  return values.empty() ? "" : std::string(values[0].data(), values[0].size());
}

}  // namespace

absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                         absl::Time deadline, std::string* certificate) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  // A HealthCheckRequest for the server as a whole is empty.
  grpc::Slice empty;
  grpc::ByteBuffer answer;
  grpc::Status status;
  grpc::CompletionQueue queue;
  const auto call = grpc::GenericStub(channel).PrepareUnaryCall(
      &context, "/grpc.health.v1.Health/Check", grpc::ByteBuffer(&empty, 1),
      &queue);
  call->StartCall();
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool done = false;
  queue.Next(&tag, &done);
  if (certificate != nullptr) *certificate = PeerCertificate(context);
  if (!status.ok()) return FromGrpcStatus(status);
  if (Bytes(answer) == kServing) return absl::OkStatus();
  return absl::FailedPreconditionError("it is there, but not SERVING");
}

}  // namespace ratequant::client
