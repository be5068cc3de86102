#ifndef RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_WATCHER_H_
#define RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_WATCHER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/impl/codegen/server_callback.h"
#include "grpcpp/impl/codegen/server_context.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "services/allocation/bit_map_cache.h"

namespace ratequant::allocation {

// What all watchers of a hub did.
struct WatchCounters {
  std::atomic<int64_t> coalesced{0};
  std::atomic<int64_t> slow_ended{0};
};

// One stream of WatchBitMap. At most one message is on its way and one waits,
// the newest: a client that reads slowly costs no more than one that doesn't.
//
// Thread-safe. Lives until gRPC is done with it and the last shared_ptr is
// gone.
class BitMapWatcher : public grpc::ServerWriteReactor<v1::GetBitMapResponse> {
 public:
  using Clock = std::chrono::steady_clock;

  // `on_done` is called last, when the stream has ended.
  BitMapWatcher(grpc::CallbackServerContext* context,
                const v1::GetBitMapRequest& request,
                std::shared_ptr<WatchCounters> counters,
                std::function<void(const BitMapWatcher*)> on_done);

  const v1::GetBitMapRequest& request() const { return request_; }

  // Sends an answer, unless the client has it; later when a message is still on
  // its way, or never when a newer one comes first.
  void Offer(const BitMapCache::Answer& answer);

  // Ends the stream. Calls after the first do nothing. A message on its way
  // still arrives.
  void End(const absl::Status& status);

  // Ends the stream when a message has been on its way for longer than
  // `patience`; and when the end hasn't got through after as long again, drops
  // the connection's side of it.
  void EndIfSlow(Clock::time_point now, std::chrono::milliseconds patience);

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void WriteLocked(const BitMapCache::Answer& answer);
  void EndLocked(const absl::Status& status);

  grpc::CallbackServerContext* const context_;
  const v1::GetBitMapRequest request_;
  const std::shared_ptr<WatchCounters> counters_;
  const std::function<void(const BitMapWatcher*)> on_done_;

  // Held while gRPC is called, which doesn't call back on the same thread.
  std::mutex mutex_;
  // Guarded by mutex_.
  v1::GetBitMapResponse message_;  // on its way
  BitMapCache::Answer waiting_;    // to be sent next; null when none
  std::string sent_etag_;          // of the last message, or the client's own
  bool first_ = true;              // nothing has been sent
  bool writing_ = false;
  Clock::time_point since_;  // when writing_ began, or the end
  bool ended_ = false;
  bool done_ = false;  // context_ may be gone
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_WATCHER_H_
