#include "services/common/auth_identity.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "grpc/grpc_security_constants.h"

namespace ratequant {
namespace {

std::string_view View(const grpc::string_ref& text) {
  return {text.data(), text.size()};
}

void ReadCertificate(const grpc::AuthContext& connection,
                     Credentials* credentials) {
  const auto ids =
      connection.FindPropertyValues(GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
  if (ids.size() == 1) credentials->spiffe_id = View(ids[0]);
  for (const auto& name :
       connection.FindPropertyValues(GRPC_PEER_DNS_PROPERTY_NAME)) {
    credentials->dns_names.emplace_back(View(name));
  }
}

void ReadToken(const grpc::ServerContextBase& context,
               Credentials* credentials) {
  constexpr absl::string_view kScheme = "Bearer ";
  const auto headers = context.client_metadata().equal_range("authorization");
  for (auto header = headers.first; header != headers.second; ++header) {
    const absl::string_view value(header->second.data(), header->second.size());
    const bool first = !credentials->has_token;
    credentials->has_token = true;
    credentials->token.clear();
    if (first && absl::StartsWithIgnoreCase(value, kScheme)) {
      credentials->token =
          std::string(absl::StripAsciiWhitespace(value.substr(kScheme.size())));
    }
  }
}

}  // namespace

Credentials CredentialsOf(const grpc::ServerContextBase& context) {
  Credentials credentials;
  const auto connection = context.auth_context();
  if (connection != nullptr) ReadCertificate(*connection, &credentials);
  ReadToken(context, &credentials);
  return credentials;
}

std::string HostOf(absl::string_view peer) {
  return std::string(peer.substr(0, peer.rfind(':')));
}

}  // namespace ratequant
