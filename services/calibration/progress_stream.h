#ifndef RATEQUANT_SERVICES_CALIBRATION_PROGRESS_STREAM_H_
#define RATEQUANT_SERVICES_CALIBRATION_PROGRESS_STREAM_H_

#include <deque>
#include <functional>
#include <mutex>

#include "absl/types/optional.h"
#include "grpcpp/support/status.h"
#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::calibration {

// The sending half of a streaming call. Never blocks: while the client is slow
// the newest progress of a phase replaces the older one that waits, so that the
// work doesn't wait for whoever watches it. Every phase is sent. Thread-safe.
class ProgressStream {
 public:
  using Write = std::function<void(const v1::CalibrateProgress*)>;
  using Finish = std::function<void(const grpc::Status&)>;

  // `write` starts one write, which ends with OnWriteDone; `finish` ends the
  // call. Both are called without a lock, `finish` exactly once, after the last
  // write, and nothing after it.
  ProgressStream(Write write, Finish finish);

  // Sends `progress` unless something newer of the same phase comes first.
  // Ignored after End.
  void Offer(const v1::CalibrateProgress& progress);

  // Ends the call with `status`: after everything that waits and `last` when
  // there is one, else at once. The first call counts.
  void End(absl::optional<v1::CalibrateProgress> last, grpc::Status status);

  // The write that was started is over; false when the call is broken.
  void OnWriteDone(bool ok);

 private:
  void Advance(std::unique_lock<std::mutex> lock);

  const Write write_;
  const Finish finish_;
  std::mutex mutex_;
  v1::CalibrateProgress current_;  // being written
  std::deque<v1::CalibrateProgress> queue_;
  absl::optional<grpc::Status> end_;
  bool writing_ = false;
  bool finished_ = false;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_PROGRESS_STREAM_H_
