#ifndef RATEQUANT_CLIENTS_CPP_TRANSPORT_H_
#define RATEQUANT_CLIENTS_CPP_TRANSPORT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"

namespace ratequant::client {

// How a client encrypts, and shows who it is. PEM files, which are read again
// when they change: new connections use what is there.
struct TlsOptions {
  bool enabled = false;     // implied by any of the files
  std::string ca;           // whom servers must come from; empty: the system's
  std::string certificate;  // the client's own chain, leaf first; or empty
  std::string key;          // of the certificate
};

// Whether calls to "host:port" stay on this machine: localhost, 127.0.0.0/8,
// [::1] or a unix socket.
bool IsLoopback(absl::string_view endpoint);

// Credentials for calls to `endpoint`. PERMISSION_DENIED for plaintext to
// another machine unless that is `insecure`; INVALID_ARGUMENT for a file that
// can't be read, or a certificate without its key.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const TlsOptions& tls, absl::string_view endpoint, bool insecure);

// Adds the bearer token in `token_file`, as it is now, to a call; nothing when
// the name is empty. INVALID_ARGUMENT when there is none in it.
absl::Status AddToken(const std::string& token_file,
                      grpc::ClientContext* context);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_TRANSPORT_H_
