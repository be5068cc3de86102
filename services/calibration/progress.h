#ifndef RATEQUANT_SERVICES_CALIBRATION_PROGRESS_H_
#define RATEQUANT_SERVICES_CALIBRATION_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <mutex>

#include "absl/time/time.h"
#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::calibration {

void SetDuration(absl::Duration value, google::protobuf::Duration* out);

// Where a calibration stands. Thread-safe: the work writes, the call reads.
class Progress {
 public:
  using Clock = std::function<absl::Time()>;

  // Starts in phase LOADING. `changed` is called, without a lock, whenever the
  // phase changes.
  explicit Progress(Clock clock, std::function<void()> changed = nullptr);

  void SetPhase(v1::CalibrateProgress::Phase phase);
  void SetTotal(uint64_t tokens);
  void SetDone(uint64_t tokens);
  void AddSweepTime(absl::Duration time);

  // The time left is estimated from the rate since CAPTURING began, and unset
  // in every other phase.
  v1::CalibrateProgress Snapshot() const;

 private:
  const Clock clock_;
  const std::function<void()> changed_;
  const absl::Time start_;
  mutable std::mutex mutex_;
  v1::CalibrateProgress::Phase phase_ = v1::CalibrateProgress::LOADING;
  absl::Time phase_start_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  absl::Duration sweep_time_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_PROGRESS_H_
