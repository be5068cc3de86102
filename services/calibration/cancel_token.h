#ifndef RATEQUANT_SERVICES_CALIBRATION_CANCEL_TOKEN_H_
#define RATEQUANT_SERVICES_CALIBRATION_CANCEL_TOKEN_H_

#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ratequant::calibration {

// Tells running work to stop, and why. Thread-safe.
class CancelToken {
 public:
  // RESOURCE_EXHAUSTED when the process has no file descriptor left.
  static absl::StatusOr<std::shared_ptr<CancelToken>> Create();

  ~CancelToken();

  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  // Asks for the stop; `why` is what the call answers. The first call counts.
  void Cancel(absl::Status why);

  // OK until Cancel; then its argument.
  absl::Status status() const;

  // Becomes readable at Cancel and stays so: for poll(). Owned by the token.
  int fd() const { return fd_; }

 private:
  explicit CancelToken(int fd) : fd_(fd) {}

  const int fd_;
  mutable std::mutex mutex_;
  absl::Status why_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CANCEL_TOKEN_H_
