#ifndef RATEQUANT_CLIENTS_CLI_TEXT_FILE_H_
#define RATEQUANT_CLIENTS_CLI_TEXT_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::cli {

// Offset of the first byte that isn't well-formed UTF-8 (RFC 3629: no overlong
// forms, no surrogates); npos when all of it is.
size_t FindInvalidUtf8(absl::string_view text);

// The contents of a UTF-8 text file. "-" is standard input. NOT_FOUND,
// PERMISSION_DENIED or INVALID_ARGUMENT when it can't be opened or is a folder,
// empty or blank, not UTF-8 (the message has the line), or larger than a worker
// takes in one message.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_TEXT_FILE_H_
