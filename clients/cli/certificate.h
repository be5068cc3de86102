#ifndef RATEQUANT_CLIENTS_CLI_CERTIFICATE_H_
#define RATEQUANT_CLIENTS_CLI_CERTIFICATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ratequant::cli {

struct Certificate {
  std::string subject;  // "CN=allocator,O=Example"
  absl::Time begins;
  absl::Time expires;
};

// The X.509 certificates of a PEM text, in its order. INVALID_ARGUMENT when it
// has none, or one that can't be read.
absl::StatusOr<std::vector<Certificate>> ParseCertificates(
    absl::string_view pem);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_CERTIFICATE_H_
