#ifndef RATEQUANT_CLIENTS_CLI_YAML_OUTPUT_H_
#define RATEQUANT_CLIENTS_CLI_YAML_OUTPUT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::cli {

// JSON as a YAML 1.2 document in block style that begins with "---" and ends in
// a newline: names and their order are kept, texts are in double quotes, arrays
// of numbers and texts are on one line. INTERNAL for what isn't JSON.
absl::StatusOr<std::string> JsonToYaml(absl::string_view json);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_YAML_OUTPUT_H_
