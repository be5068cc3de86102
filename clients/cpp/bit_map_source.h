#ifndef RATEQUANT_CLIENTS_CPP_BIT_MAP_SOURCE_H_
#define RATEQUANT_CLIENTS_CPP_BIT_MAP_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/client.h"
#include "clients/cpp/disk_copy.h"
#include "clients/cpp/handoff.h"
#include "clients/cpp/loaded_bit_map.h"
#include "clients/cpp/retry.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::client {

// How a source starts and where it keeps its map.
struct BitMapSourceOptions {
  // Where the last good map is kept; empty: nowhere. Several processes may
  // share it (disk_copy.h).
  std::string folder;

  // The shape of the engine's model. Maps of another are refused, from disk
  // too. Unset: any will do. query_heads plays no part.
  std::optional<kv::KvGeometry> geometry = std::nullopt;

  // How long Start waits for the allocator when it has the map on disk.
  absl::Duration fresh_wait = absl::Milliseconds(20);

  // The same when there is nothing to start from.
  absl::Duration first_wait = absl::Seconds(30);

  // Pauses before the allocator is asked again, after it was away or refused
  // the query: doubled each time up to the largest, and shortened at random to
  // between half and all of it.
  absl::Duration initial_backoff = absl::Seconds(1);
  absl::Duration max_backoff = absl::Seconds(30);
};

// How a source is doing: for logs and metrics.
struct BitMapSourceState {
  // When the allocator last said which map is the answer: what is used or
  // offered was received or confirmed then. For a map from disk that wasn't
  // confirmed yet, when it was received. InfinitePast: no map.
  absl::Time confirmed = absl::InfinitePast();

  // OK while the allocator is followed; otherwise why not, or why the map that
  // it gave can't be used.
  absl::Status allocator =
      absl::UnavailableError("the allocator hasn't answered yet");

  // OK, or what went wrong with the disk copy the last time it was read or
  // written. Nothing kept yet is no error.
  absl::Status disk;

  int64_t received = 0;  // maps from the allocator that can be used
};

// The bit map for one query, for an engine that must not stop when the
// allocator does. It starts from the allocator's answer or, when that is away,
// from the last good one on disk; follows WatchBitMap in a thread of its own;
// verifies each map and keeps it on disk; and hands it to the engine when the
// engine asks, never otherwise:
//
//   auto source = BitMapSource::Start(client, request, {.folder = "..."});
//   auto map = (*source)->Current();
//   auto cache = kv::KvCache::Create(map->config, ...);
//   for (;;) {  // steps
//     if (auto update = (*source)->TakeUpdate()) {
//       // new sequences use a cache made from update->config
//     }
//   }
//
// Maps are immutable and live as long as somebody holds them. Thread-safe;
// TakeUpdate gives each map to one caller.
class BitMapSource {
 public:
  // `request` asks as for GetBitMap; its model may be an id or a hub name.
  // `client` is used until the source is gone. Blocks for at most
  // `options.fresh_wait` or `options.first_wait`. Errors, when there is no map
  // on disk that can be used either: what the allocator refused the query with,
  // what is wrong with its map (see LoadBitMap), or after `first_wait` why it
  // can't be reached; the message tells what is wrong with the disk copy too.
  static absl::StatusOr<std::unique_ptr<BitMapSource>> Start(
      std::shared_ptr<Client> client, v1::GetBitMapRequest request,
      BitMapSourceOptions options = {},
      Environment environment = Environment::Real());

  // Ends the calls to the allocator and waits for the thread.
  ~BitMapSource();
  BitMapSource(const BitMapSource&) = delete;
  BitMapSource& operator=(const BitMapSource&) = delete;

  // The map in use: the one that Start found or TakeUpdate returned last. Never
  // null.
  std::shared_ptr<const LoadedBitMap> Current() const {
    return handoff_.Current();
  }

  // The newest map when it is another than Current, which it is from now on;
  // null else, at the cost of one load.
  std::shared_ptr<const LoadedBitMap> TakeUpdate() { return handoff_.Take(); }

  // Whether TakeUpdate would return a map.
  bool HasUpdate() const { return handoff_.HasOffer(); }

  // How the source is doing now.
  BitMapSourceState state() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  BitMapSource(std::shared_ptr<Client> client, v1::GetBitMapRequest request,
               BitMapSourceOptions options, Environment environment);

  bool LoadFromDisk();
  absl::StatusOr<std::shared_ptr<const LoadedBitMap>> LoadChecked(
      v1::GetBitMapResponse answer) const;
  absl::Status AwaitFirst(bool from_disk);

  // The thread.
  void Follow();
  absl::Status FollowOnce();
  void Answered(const v1::GetBitMapResponse& answer);
  absl::StatusOr<bool> Accept(const v1::GetBitMapResponse& answer);
  void Keep(const v1::GetBitMapResponse& answer);
  void SetAllocator(const absl::Status& status, bool settled);

  const std::shared_ptr<Client> client_;
  const BitMapSourceOptions options_;
  const Environment environment_;
  const std::optional<DiskCopy> disk_;

  Handoff<LoadedBitMap> handoff_;
  Cancellation stop_;
  absl::Notification settled_;  // an answer came, or a refusal
  mutable absl::Mutex mutex_;
  BitMapSourceState state_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;

  // The thread's, once it runs.
  std::shared_ptr<const LoadedBitMap> newest_;
  v1::GetBitMapRequest request_;
  bool answered_ = false;  // the allocator did, since it was asked last
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_BIT_MAP_SOURCE_H_
