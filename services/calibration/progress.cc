#include "services/calibration/progress.h"

#include <utility>

namespace ratequant::calibration {

void SetDuration(absl::Duration value, google::protobuf::Duration* out) {
  out->set_seconds(absl::IDivDuration(value, absl::Seconds(1), &value));
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(value)));
}

Progress::Progress(Clock clock, std::function<void()> changed)
    : clock_(std::move(clock)),
      changed_(std::move(changed)),
      start_(clock_()),
      phase_start_(start_) {}

void Progress::SetPhase(v1::CalibrateProgress::Phase phase) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    phase_ = phase;
    phase_start_ = clock_();
  }
  if (changed_) changed_();
}

void Progress::SetTotal(uint64_t tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  total_ = tokens;
}

void Progress::SetDone(uint64_t tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  done_ = tokens;
}

void Progress::AddSweepTime(absl::Duration time) {
  std::lock_guard<std::mutex> lock(mutex_);
  sweep_time_ += time;
}

v1::CalibrateProgress Progress::Snapshot() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::Time now = clock_();
  v1::CalibrateProgress progress;
  progress.set_phase(phase_);
  progress.set_tokens_done(done_);
  progress.set_tokens_total(total_);
  SetDuration(now - start_, progress.mutable_elapsed());
  SetDuration(sweep_time_, progress.mutable_sweep_time());
  if (phase_ == v1::CalibrateProgress::CAPTURING && done_ > 0) {
    const double left = double(total_ - done_) / double(done_);
    SetDuration((now - phase_start_) * left, progress.mutable_remaining());
  }
  return progress;
}

}  // namespace ratequant::calibration
