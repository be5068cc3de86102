#ifndef RATEQUANT_SERVICES_CALIBRATION_MODEL_PATH_H_
#define RATEQUANT_SERVICES_CALIBRATION_MODEL_PATH_H_

#include <string>

#include "absl/status/statusor.h"

namespace ratequant::calibration {

// Resolves model paths below one folder. Immutable, thread-safe.
class ModelRoot {
 public:
  // FAILED_PRECONDITION (MODEL_ROOT_UNUSABLE) when `root` isn't a folder.
  static absl::StatusOr<ModelRoot> Open(const std::string& root);

  // The real path of the folder `path`, absolute or relative to the root, links
  // resolved. INVALID_ARGUMENT (INVALID_ARGUMENT) when empty; PERMISSION_DENIED
  // (MODEL_PATH_OUTSIDE_ROOT) when it leads outside the root, whether or not
  // something is there; NOT_FOUND (MODEL_PATH_NOT_FOUND) when it is inside and
  // not a folder; FAILED_PRECONDITION (MODEL_UNREADABLE) when the worker may
  // not look.
  absl::StatusOr<std::string> Resolve(const std::string& path) const;

 private:
  ModelRoot(std::string given, std::string real);

  std::string given_;  // absolute, normalised, links not resolved
  std::string real_;   // links resolved
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_MODEL_PATH_H_
