#ifndef RATEQUANT_SERVICES_CALIBRATION_CHUNK_QUEUE_H_
#define RATEQUANT_SERVICES_CALIBRATION_CHUNK_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "services/calibration/cancel_token.h"

namespace ratequant::calibration {

// Hands chunks from the call that receives them to the thread that uses them,
// a few at a time, so that a fast client waits instead of filling the memory.
// Thread-safe.
class ChunkQueue {
 public:
  // Chunks that may wait, and their bytes; the last one may go beyond. Whoever
  // fills the queue asks for the next chunk while there is room, and again when
  // `room` is called (without a lock).
  static constexpr size_t kCapacity = 4;
  static constexpr size_t kCapacityBytes = 8 << 20;

  explicit ChunkQueue(std::function<void()> room) : room_(std::move(room)) {}

  // Adds a chunk; true when there is room for another, else `room` will be
  // called.
  bool Push(v1::CalibrateChunk chunk);

  // No chunk will follow.
  void Close();

  // Wakes a Pop that waits, so that it sees a cancellation.
  void Wake();

  // The next chunk; empty after Close. Errors: `cancel`'s status;
  // DEADLINE_EXCEEDED when none came within `patience`.
  absl::StatusOr<absl::optional<v1::CalibrateChunk>> Pop(
      absl::Duration patience, const CancelToken& cancel);

 private:
  bool HasRoom() const {
    return chunks_.size() < kCapacity && bytes_ < kCapacityBytes;
  }

  const std::function<void()> room_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::CalibrateChunk> chunks_;
  size_t bytes_ = 0;  // of chunks_
  bool closed_ = false;
  bool starved_ = false;  // `room` is owed
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CHUNK_QUEUE_H_
