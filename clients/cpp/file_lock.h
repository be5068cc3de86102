#ifndef RATEQUANT_CLIENTS_CPP_FILE_LOCK_H_
#define RATEQUANT_CLIENTS_CPP_FILE_LOCK_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/retry.h"

namespace ratequant::client {

// A lock that one holder on this host has at a time, whatever process it is in;
// the system takes it back from a process that dies. Move-only.
class FileLock {
 public:
  // Locks the file at `path`, made if it isn't there and never removed. Looks
  // again every few milliseconds until `timeout` has passed, then UNAVAILABLE;
  // NOT_FOUND, PERMISSION_DENIED and the like when the file can't be opened.
  static absl::StatusOr<FileLock> Acquire(const std::string& path,
                                          absl::Duration timeout,
                                          const Environment& environment);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int file) : file_(file) {}

  int file_ = -1;  // -1: moved from
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_FILE_LOCK_H_
