#include "services/calibration/cancel_token.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace ratequant::calibration {

absl::StatusOr<std::shared_ptr<CancelToken>> CancelToken::Create() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, "eventfd");
  return std::shared_ptr<CancelToken>(new CancelToken(fd));
}

CancelToken::~CancelToken() { close(fd_); }

void CancelToken::Cancel(absl::Status why) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!why_.ok()) return;
  why_ = std::move(why);
  // Can't fail: the counter is 0 and the descriptor is ours.
  const uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(fd_, &one, sizeof(one));
}

absl::Status CancelToken::status() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return why_;
}

}  // namespace ratequant::calibration
