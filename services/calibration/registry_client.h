#ifndef RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_
#define RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/calibration/cancel_token.h"

namespace ratequant::calibration {

// Where calibrations go. Thread-safe.
class RegistryClient {
 public:
  virtual ~RegistryClient() = default;

  // Stores `calibration` (its name filled in); OK means stored durably. One
  // attempt. Errors: the registry's own, with their details; UNAVAILABLE when
  // it can't be reached; DEADLINE_EXCEEDED; `cancel`'s status.
  virtual absl::Status Create(const v1::Calibration& calibration,
                              const CancelToken& cancel) = 0;
};

// A registry over gRPC at `target` ("host:port"), each call with a deadline.
std::unique_ptr<RegistryClient> MakeGrpcRegistryClient(
    const std::string& target, absl::Duration deadline);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_REGISTRY_CLIENT_H_
