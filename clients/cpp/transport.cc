#include "clients/cpp/transport.h"

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace ratequant::client {
namespace {

constexpr unsigned kReloadSeconds = 10;

// gRPC would fail every connection, and say why only in its log.
absl::Status CheckFiles(const TlsOptions& tls) {
  if (tls.certificate.empty() != tls.key.empty()) {
    return absl::InvalidArgumentError(
        "a client certificate and its key go together; give both files");
  }
  for (const std::string& path : {tls.ca, tls.certificate, tls.key}) {
    std::ifstream file(path);
    std::string line;
    bool pem = false;
    while (!pem && std::getline(file, line)) {
      pem = absl::StartsWith(line, "-----BEGIN ");
    }
    if (!path.empty() && !pem) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no PEM in ", path));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLoopback(absl::string_view endpoint) {
  return absl::StartsWith(endpoint, "127.") ||
         absl::StartsWith(endpoint, "localhost:") ||
         absl::StartsWith(endpoint, "[::1]:") ||
         absl::StartsWith(endpoint, "unix:");
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const TlsOptions& tls, absl::string_view endpoint, bool insecure) {
  const bool files =
      !tls.ca.empty() || !tls.certificate.empty() || !tls.key.empty();
  if (!tls.enabled && !files) {
    if (insecure || IsLoopback(endpoint)) {
      return grpc::InsecureChannelCredentials();
    }
    return absl::PermissionDeniedError(absl::StrCat(
        "refusing to call ", endpoint,
        " in plaintext: it isn't on this machine; use TLS (--tls or --tls-ca "
        "FILE), or allow it (--insecure)"));
  }
  absl::Status readable = CheckFiles(tls);
  if (!readable.ok()) return readable;
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (files) {
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
            tls.key, tls.certificate, tls.ca, kReloadSeconds));
  }
  if (!tls.ca.empty()) options.watch_root_certs();
  if (!tls.certificate.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

absl::Status AddToken(const std::string& token_file,
                      grpc::ClientContext* context) {
  if (token_file.empty()) return absl::OkStatus();
  std::ifstream file(token_file);
  std::string token;
  if (!(file >> token)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no token in ", token_file));
  }
  context->AddMetadata("authorization", absl::StrCat("Bearer ", token));
  return absl::OkStatus();
}

}  // namespace ratequant::client
