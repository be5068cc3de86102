#ifndef RATEQUANT_CLIENTS_CLI_JSON_OUTPUT_H_
#define RATEQUANT_CLIENTS_CLI_JSON_OUTPUT_H_

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace ratequant::cli {

// Protobuf's JSON mapping with the field names of the .proto files; fields at
// their default are printed too. Ends in a newline; `one_line` leaves out every
// other.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message,
                                   bool one_line = false);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_JSON_OUTPUT_H_
