#include "clients/cpp/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace ratequant::client {
namespace {

absl::Status Failed(absl::string_view doing, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(doing, " ", path));
}

absl::Status WriteAndSync(int file, absl::string_view bytes,
                          const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("writing", path);
    bytes.remove_prefix(written);
  }
  return fsync(file) == 0 ? absl::OkStatus() : Failed("syncing", path);
}

absl::Status WriteNew(const std::string& path, absl::string_view bytes) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
           0644);
  if (file < 0) return Failed("creating", path);
  absl::Status status = WriteAndSync(file, bytes, path);
  if (close(file) != 0 && status.ok()) status = Failed("closing", path);
  return status;
}

// Makes a rename in the folder last.
absl::Status SyncFolder(const std::string& path) {
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return Failed("opening", path);
  const absl::Cleanup closing = [folder] { close(folder); };
  return fsync(folder) == 0 ? absl::OkStatus() : Failed("syncing", path);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     size_t max_bytes) {
  // O_NONBLOCK: opening a pipe would wait for its writer.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return Failed("opening", path);
  const absl::Cleanup closing = [file] { close(file); };
  struct stat about = {};
  if (fstat(file, &about) != 0) return Failed("reading", path);
  if (!S_ISREG(about.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not a regular file"));
  }
  if (static_cast<size_t>(about.st_size) > max_bytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", about.st_size,
                                            " bytes; at most ", max_bytes,
                                            " are supported"));
  }
  std::string bytes(about.st_size, '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t n = read(file, &bytes[filled], bytes.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed("reading", path);
    if (n == 0) break;
    filled += n;
  }
  bytes.resize(filled);
  return bytes;
}

absl::Status ReplaceFile(const std::string& path, absl::string_view bytes) {
  const std::string fresh = absl::StrCat(path, ".new");
  absl::Status status = WriteNew(fresh, bytes);
  if (status.ok() && rename(fresh.c_str(), path.c_str()) != 0) {
    status = Failed("replacing", path);
  }
  if (!status.ok()) {
    unlink(fresh.c_str());
    return status;
  }
  return SyncFolder(std::filesystem::path(path).parent_path().string());
}

}  // namespace ratequant::client
