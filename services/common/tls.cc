#include "services/common/tls.h"

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "openssl/bio.h"
#include "openssl/err.h"
#include "openssl/pem.h"
#include "openssl/ssl.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Context = std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>>;
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;

// OpenSSL's first words about what went wrong on this thread.
absl::Status BadFile(const std::string& path, absl::string_view what) {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_TLS_FILES",
      absl::StrCat(path, " ", what, ": ",
                   reason == nullptr ? "it can't be read" : reason),
      {{"path", path}});
}

// A file that gRPC would only log about once it is too late.
absl::Status CheckFiles(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_TLS_FILES",
                     "a certificate and its key go together; give both files");
  }
  ERR_clear_error();
  const Context context(SSL_CTX_new(TLS_method()));
  if (!files.certificate.empty()) {
    if (SSL_CTX_use_certificate_chain_file(context.get(),
                                           files.certificate.c_str()) != 1) {
      return BadFile(files.certificate, "isn't a certificate chain in PEM");
    }
    if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(),
                                    SSL_FILETYPE_PEM) != 1) {
      return BadFile(files.key, "isn't the certificate's key in PEM");
    }
  }
  if (!files.ca.empty() && SSL_CTX_load_verify_locations(
                               context.get(), files.ca.c_str(), nullptr) != 1) {
    return BadFile(files.ca, "isn't a bundle of CA certificates in PEM");
  }
  return absl::OkStatus();
}

std::shared_ptr<FileWatcherCertificateProvider> Watch(const TlsFiles& files) {
  return std::make_shared<FileWatcherCertificateProvider>(
      files.key, files.certificate, files.ca,
      static_cast<unsigned>(files.reload_interval.count()));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServerCredentials(
    const TlsFiles& files, ClientCertificate client) {
  if (files.certificate.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_TLS_FILES",
                     "a server with TLS needs a certificate and its key");
  }
  absl::Status readable = CheckFiles(files);
  if (!readable.ok()) return readable;
  grpc::experimental::TlsServerCredentialsOptions options(Watch(files));
  options.watch_identity_key_cert_pairs();
  if (!files.ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(
        client == ClientCertificate::kRequired
            ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsClientCredentials(
    const TlsFiles& files) {
  absl::Status readable = CheckFiles(files);
  if (!readable.ok()) return readable;
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!files.empty()) options.set_certificate_provider(Watch(files));
  if (!files.ca.empty()) options.watch_root_certs();
  if (!files.certificate.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

absl::StatusOr<absl::Time> CertificateExpiry(const std::string& path) {
  ERR_clear_error();
  const Bio file(BIO_new_file(path.c_str(), "r"));
  const Certificate leaf(
      file == nullptr
          ? nullptr
          : PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr));
  std::tm end = {};
  if (leaf == nullptr ||
      ASN1_TIME_to_tm(X509_get0_notAfter(leaf.get()), &end) != 1) {
    return BadFile(path, "isn't a certificate in PEM");
  }
  return absl::FromTM(end, absl::UTCTimeZone());
}

void SampleCertificate(const std::string& name, const std::string& path,
                       MetricSamples* out) {
  const absl::StatusOr<absl::Time> expiry = CertificateExpiry(path);
  if (!expiry.ok()) return;
  out->Gauge("ratequant_tls_certificate_expiry_seconds",
             "When the certificate ends to be valid, seconds since 1970",
             absl::ToDoubleSeconds(*expiry - absl::UnixEpoch()),
             {{"certificate", name}});
}

}  // namespace ratequant
