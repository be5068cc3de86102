#include "clients/cpp/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ratequant::client {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(5);

}  // namespace

absl::StatusOr<FileLock> FileLock::Acquire(const std::string& path,
                                           absl::Duration timeout,
                                           const Environment& environment) {
  const int file =
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (file < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  }
  FileLock lock(file);
  const absl::Time deadline = environment.now() + timeout;
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {
      return absl::ErrnoToStatus(errno, absl::StrCat("locking ", path));
    }
    if (environment.now() >= deadline) {
      return absl::UnavailableError(
          absl::StrCat("another process has held the lock ", path,
                       " for more than ", absl::FormatDuration(timeout)));
    }
    environment.sleep(kPause);
  }
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept
    : file_(std::exchange(other.file_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(file_, other.file_);
  return *this;
}

FileLock::~FileLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace ratequant::client
