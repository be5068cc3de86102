#ifndef RATEQUANT_SERVICES_COMMON_TLS_H_
#define RATEQUANT_SERVICES_COMMON_TLS_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "services/common/metrics.h"

namespace ratequant {

// PEM files of one end of a connection. They are read again when they change:
// new connections use what is there, connections that are open go on. Replace
// key and certificate together, as Kubernetes does with a volume's link.
struct TlsFiles {
  std::string certificate;  // the end's own chain, leaf first
  std::string key;          // of the leaf
  std::string ca;           // whom the other end's certificate must come from
  std::chrono::seconds reload_interval{10};

  bool empty() const {
    return certificate.empty() && key.empty() && ca.empty();
  }
};

// How a server looks at clients without a certificate.
enum class ClientCertificate { kRequired, kOptional };

// Credentials of a server with `files`, which has certificate and key. With a
// CA clients are asked for a certificate, which must come from it.
//
// INVALID_ARGUMENT (INVALID_TLS_FILES) names the file and what is wrong: it
// can't be read, isn't PEM, or the key doesn't fit.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServerCredentials(
    const TlsFiles& files, ClientCertificate client);

// Credentials of a client, which checks that the server's certificate is for
// the host it called. Without a CA those of the system; certificate and key are
// optional. Errors as above.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsClientCredentials(
    const TlsFiles& files);

// When the leaf of a certificate file ends to be valid. Errors as above.
absl::StatusOr<absl::Time> CertificateExpiry(const std::string& path);

// Samples when a certificate ends to be valid, under certificate=`name`;
// nothing when it can't be read.
void SampleCertificate(const std::string& name, const std::string& path,
                       MetricSamples* out);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_TLS_H_
