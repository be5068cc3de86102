#include "services/allocation/bit_map_watcher.h"

#include <utility>

#include "services/allocation/handler.h"
#include "services/common/status.h"

namespace ratequant::allocation {

BitMapWatcher::BitMapWatcher(grpc::CallbackServerContext* context,
                             const v1::GetBitMapRequest& request,
                             std::shared_ptr<WatchCounters> counters,
                             std::function<void(const BitMapWatcher*)> on_done)
    : context_(context),
      request_(request),
      counters_(std::move(counters)),
      on_done_(std::move(on_done)) {}

void BitMapWatcher::Offer(const BitMapCache::Answer& answer) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_) return;
  if (!writing_) return WriteLocked(answer);
  if (waiting_ != nullptr) ++counters_->coalesced;
  waiting_ = answer;
}

void BitMapWatcher::WriteLocked(const BitMapCache::Answer& answer) {
  if (!first_ && answer->etag() == sent_etag_) return;
  message_.Clear();
  if (first_) {
    FillResponse(request_, *answer, &message_);
  } else {
    message_ = *answer;
  }
  first_ = false;
  sent_etag_ = answer->etag();
  writing_ = true;
  since_ = Clock::now();
  StartWrite(&message_);
}

void BitMapWatcher::OnWriteDone(bool ok) {
  std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  if (ended_) return;
  if (!ok) return EndLocked(absl::CancelledError("the connection broke"));
  message_.Clear();
  if (waiting_ == nullptr) return;
  const BitMapCache::Answer next = std::move(waiting_);
  waiting_ = nullptr;
  WriteLocked(next);
}

void BitMapWatcher::End(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!ended_) EndLocked(status);
}

void BitMapWatcher::EndLocked(const absl::Status& status) {
  ended_ = true;
  since_ = Clock::now();
  waiting_ = nullptr;
  Finish(ToGrpcStatus(status));
}

void BitMapWatcher::EndIfSlow(Clock::time_point now,
                              std::chrono::milliseconds patience) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (done_ || (!writing_ && !ended_) || now - since_ < patience) return;
  if (ended_) return context_->TryCancel();
  ++counters_->slow_ended;
  EndLocked(WithRetryDelay(
      MakeError(absl::StatusCode::kUnavailable, "WATCHER_TOO_SLOW",
                "a message wasn't read for too long; watch again with the "
                "last etag as known_etag"),
      absl::Seconds(1)));
}

void BitMapWatcher::OnCancel() { End(CallCancelled()); }

void BitMapWatcher::OnDone() {
  // A copy: the hub's reference may be the last.
  const auto on_done = on_done_;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
  }
  on_done(this);
}

}  // namespace ratequant::allocation
