#ifndef RATEQUANT_CLIENTS_CPP_DURABLE_FILE_H_
#define RATEQUANT_CLIENTS_CPP_DURABLE_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::client {

// Reads a regular file. NOT_FOUND, PERMISSION_DENIED and the like;
// FAILED_PRECONDITION for anything but a regular file; DATA_LOSS for more than
// `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// Puts `bytes` at `path`, so that whoever reads it at any time, after a crash
// of the process or the machine too, finds what was there before or all of
// this. Writes to `path` + ".new" first: one writer at a time. On an error what
// was there stays.
absl::Status ReplaceFile(const std::string& path, absl::string_view bytes);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_DURABLE_FILE_H_
