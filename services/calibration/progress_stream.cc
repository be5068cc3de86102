#include "services/calibration/progress_stream.h"

#include <utility>

namespace ratequant::calibration {

ProgressStream::ProgressStream(Write write, Finish finish)
    : write_(std::move(write)), finish_(std::move(finish)) {}

void ProgressStream::Offer(const v1::CalibrateProgress& progress) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (end_.has_value()) return;
  if (!queue_.empty() && queue_.back().phase() == progress.phase()) {
    queue_.back() = progress;
  } else {
    queue_.push_back(progress);
  }
  Advance(std::move(lock));
}

void ProgressStream::End(absl::optional<v1::CalibrateProgress> last,
                         grpc::Status status) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (end_.has_value()) return;
  end_ = std::move(status);
  if (last.has_value()) {
    queue_.push_back(*std::move(last));
  } else {
    queue_.clear();
  }
  Advance(std::move(lock));
}

void ProgressStream::OnWriteDone(bool ok) {
  std::unique_lock<std::mutex> lock(mutex_);
  writing_ = false;
  if (!ok) queue_.clear();
  Advance(std::move(lock));
}

// Starts what comes next, if anything can start now.
void ProgressStream::Advance(std::unique_lock<std::mutex> lock) {
  if (writing_ || finished_) return;
  if (!queue_.empty()) {
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    lock.unlock();
    write_(&current_);
  } else if (end_.has_value()) {
    finished_ = true;
    const grpc::Status status = *end_;
    lock.unlock();
    finish_(status);
  }
}

}  // namespace ratequant::calibration
