#ifndef RATEQUANT_SERVICES_COMMON_PORT_FILE_H_
#define RATEQUANT_SERVICES_COMMON_PORT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace ratequant {

// Writes "PORT\n" to a file, by rename: who waits for it finds it whole.
// FAILED_PRECONDITION (PORT_FILE_UNWRITABLE) with the system's words.
absl::Status WritePortFile(const std::string& path, int port);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_PORT_FILE_H_
