#include "services/calibration/chunk_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace ratequant::calibration {

bool ChunkQueue::Push(v1::CalibrateChunk chunk) {
  std::lock_guard<std::mutex> lock(mutex_);
  bytes_ += chunk.ByteSizeLong();
  chunks_.push_back(std::move(chunk));
  changed_.notify_all();
  starved_ = !HasRoom();
  return !starved_;
}

void ChunkQueue::Close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void ChunkQueue::Wake() {
  // The lock closes the gap between a Pop's check and its wait.
  std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

absl::StatusOr<absl::optional<v1::CalibrateChunk>> ChunkQueue::Pop(
    absl::Duration patience, const CancelToken& cancel) {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool ready = changed_.wait_for(
      lock, absl::ToChronoNanoseconds(patience),
      [&]() { return !chunks_.empty() || closed_ || !cancel.status().ok(); });
  absl::Status cancelled = cancel.status();
  if (!cancelled.ok()) return cancelled;
  if (!ready) {
    return absl::DeadlineExceededError(
        absl::StrCat("no chunk within ", absl::FormatDuration(patience)));
  }
  if (chunks_.empty()) return absl::optional<v1::CalibrateChunk>();
  auto chunk = absl::make_optional(std::move(chunks_.front()));
  chunks_.pop_front();
  bytes_ -= chunk->ByteSizeLong();
  const bool call = starved_ && HasRoom();
  if (call) starved_ = false;
  lock.unlock();
  if (call) room_();
  return chunk;
}

}  // namespace ratequant::calibration
