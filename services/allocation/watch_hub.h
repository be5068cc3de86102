#ifndef RATEQUANT_SERVICES_ALLOCATION_WATCH_HUB_H_
#define RATEQUANT_SERVICES_ALLOCATION_WATCH_HUB_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "services/allocation/bit_map_cache.h"
#include "services/allocation/bit_map_watcher.h"

namespace ratequant::allocation {

// The streams of WatchBitMap, by model. One thread looks up what they are to
// hear, however many there are; the streams themselves live on gRPC's threads.
// A model that changes while it is being looked at is looked at once more, not
// once for each change.
//
// Thread-safe.
class WatchHub {
 public:
  // `maps` must outlive it. A watcher whose client takes no message for
  // `patience` is ended. At most `max_watchers` streams at once.
  WatchHub(BitMapCache* maps, std::chrono::milliseconds patience,
           int64_t max_watchers);

  // Stop, and waits for the thread. Every watcher must have ended: shut the
  // server down before.
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // A new stream. It owns itself, and leaves the hub when it has ended, which
  // is at once when it isn't `admitted`, or there are too many
  // (RESOURCE_EXHAUSTED, TOO_MANY_WATCHES).
  grpc::ServerWriteReactor<v1::GetBitMapResponse>* Watch(
      grpc::CallbackServerContext* context, const v1::GetBitMapRequest& request,
      const absl::Status& admitted);

  // Says that answers about a model may have changed. Returns at once.
  void Changed(const std::string& model);

  // Ends every watcher, and those that still come, with UNAVAILABLE
  // (SERVER_STOPPING).
  void Stop();

  // Fills in the counters of watchers.
  void AddStatistics(v1::Statistics* out) const;

 private:
  using Watcher = std::shared_ptr<BitMapWatcher>;

  void Run();
  void Answer(const std::vector<Watcher>& watchers);
  void EndSlow();
  void Remove(const BitMapWatcher* watcher);

  BitMapCache* const maps_;
  const std::chrono::milliseconds patience_;
  const int64_t max_watchers_;
  const std::shared_ptr<WatchCounters> counters_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  std::map<std::string, std::map<const BitMapWatcher*, Watcher>> by_model_;
  std::set<std::string> changed_;  // models to look at
  std::vector<Watcher> new_;       // watchers to look at
  int64_t count_ = 0;
  bool stopping_ = false;  // no new watchers
  bool ending_ = false;    // the thread is to end
  std::thread thread_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_WATCH_HUB_H_
