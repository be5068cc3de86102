#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_FOLDER_COPY_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_FOLDER_COPY_H_

#include <string>

#include "absl/status/status.h"

namespace ratequant::allocation {

// Copies the files of a folder to `to`, which must be empty or not exist, and
// syncs them: when it is OK the copy survives a power failure, when it isn't
// `to` is as it was. UNAVAILABLE says what failed.
absl::Status CopyFolder(const std::string& from, const std::string& to);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_FOLDER_COPY_H_
