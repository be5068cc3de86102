#ifndef RATEQUANT_CLIENTS_CLI_ERROR_REPORT_H_
#define RATEQUANT_CLIENTS_CLI_ERROR_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cli/text_style.h"

namespace ratequant::cli {

// What is known about the command that failed.
struct ErrorContext {
  std::string verb = {};   // "bitmap get"
  std::string model = {};  // as the user gave it; empty when the verb has none
  std::string allocator_endpoint = {};
  std::string worker_endpoint = {};

  // What the server has instead of what it was asked for: models after
  // MODEL_NOT_FOUND, quantizers after QUANTIZER_NOT_CALIBRATED, calibrations
  // after CALIBRATION_NOT_FOUND. Empty when unknown.
  std::vector<std::string> available = {};
};

// What a person can do about `status`, a line each; empty when nothing is known
// to help.
std::vector<std::string> NextSteps(const absl::Status& status,
                                   const ErrorContext& context);

// The failure for people, as lines: the message, the server's reason, wrong
// fields, and what to do next.
std::string RenderError(const absl::Status& status, const ErrorContext& context,
                        const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_ERROR_REPORT_H_
