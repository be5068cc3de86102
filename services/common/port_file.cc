#include "services/common/port_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant {

absl::Status WritePortFile(const std::string& path, int port) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  std::ofstream out(temporary, std::ios::trunc);
  out << port << "\n";
  out.close();
  if (out.fail() || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary.c_str());
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "PORT_FILE_UNWRITABLE",
                     absl::StrCat("cannot write the port file ", path, ": ",
                                  std::strerror(error)),
                     {{"path", path}});
  }
  return absl::OkStatus();
}

}  // namespace ratequant
