#ifndef RATEQUANT_CLIENTS_CLI_FIND_CALIBRATION_H_
#define RATEQUANT_CLIENTS_CLI_FIND_CALIBRATION_H_

#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/client.h"

namespace ratequant::cli {

// The resource name of the calibration a person means: a resource name, an id,
// "latest", or the first four or more digits of an id, which the server is
// asked about. `model` may be empty with a resource name. A usage error when it
// can't be told; NOT_FOUND or a usage error when no or several ids begin so.
absl::StatusOr<std::string> FindCalibration(client::Client& client,
                                            const std::string& model,
                                            const std::string& text);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_FIND_CALIBRATION_H_
