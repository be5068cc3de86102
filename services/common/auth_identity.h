#ifndef RATEQUANT_SERVICES_COMMON_AUTH_IDENTITY_H_
#define RATEQUANT_SERVICES_COMMON_AUTH_IDENTITY_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grpcpp/impl/codegen/server_context.h"

namespace ratequant {

// What a caller has shown: names in a certificate that TLS has checked, and a
// bearer token that nobody has checked yet.
struct Credentials {
  std::string spiffe_id;               // empty: none
  std::vector<std::string> dns_names;  // of the certificate
  bool has_token = false;              // there is an authorization header
  std::string token;  // empty when the header isn't one bearer token
};

// The credentials of a call.
Credentials CredentialsOf(const grpc::ServerContextBase& context);

// A peer without its port, "ipv4:10.0.0.7": connections of one machine are one
// client.
std::string HostOf(absl::string_view peer);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_AUTH_IDENTITY_H_
