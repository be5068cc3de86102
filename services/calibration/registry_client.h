#ifndef RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_
#define RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/calibration/cancel_token.h"
#include "services/common/tls.h"

namespace ratequant::calibration {

// Where calibrations go. Thread-safe.
class RegistryClient {
 public:
  virtual ~RegistryClient() = default;

  // Stores `calibration` (its name filled in); OK means stored durably. One
  // attempt. Errors: the registry's own, with their details; UNAVAILABLE when
  // it can't be reached, or the token file can't be read;
  // DEADLINE_EXCEEDED; `cancel`'s status.
  virtual absl::Status Create(const v1::Calibration& calibration,
                              const CancelToken& cancel) = 0;

  // Whether it can be connected to; may take two seconds.
  virtual absl::Status CheckReachable() { return absl::OkStatus(); }
};

// Where an allocator is and how it is called.
struct RegistryTarget {
  std::string address;  // "host:port"
  bool encrypted = false;
  TlsFiles tls;            // with `encrypted`; see TlsClientCredentials
  std::string token_file;  // holds a bearer token, read for each call; or empty

  // Allows plaintext to an address that isn't loopback.
  bool insecure = false;
};

// A registry over gRPC, each call with a deadline. PERMISSION_DENIED
// (INSECURE_ADDRESS) for plaintext to others than this machine without
// `insecure`; errors of TlsClientCredentials.
absl::StatusOr<std::unique_ptr<RegistryClient>> MakeGrpcRegistryClient(
    const RegistryTarget& target, absl::Duration deadline);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_
