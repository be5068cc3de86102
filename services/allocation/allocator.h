#ifndef RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_
#define RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/allocation/admin_service.h"
#include "services/allocation/allocation_service.h"
#include "services/allocation/bit_map_cache.h"
#include "services/allocation/executor.h"
#include "services/allocation/handler.h"
#include "services/allocation/registry.h"
#include "services/allocation/registry_service.h"
#include "services/allocation/store/store.h"
#include "services/allocation/watch_hub.h"
#include "services/common/call_gate.h"
#include "services/common/health_monitor.h"
#include "services/common/metrics.h"
#include "services/common/server.h"

namespace ratequant::allocation {

struct AllocatorOptions {
  // Lets calls in; outlives the allocator. Null: every call.
  CallGate* gate = nullptr;

  // Work on what isn't in memory. At least 1.
  int threads = 2;

  // Calls that may wait for one of the threads, and how long a call may.
  size_t max_waiting = 1024;
  absl::Duration max_wait = absl::Minutes(1);

  // Streams of WatchBitMap.
  int64_t max_watchers = 10'000;

  // Most bytes of answers in memory, and of bit maps without evaluations in the
  // store.
  size_t memory_bytes = size_t{64} << 20;
  uint64_t store_bytes = uint64_t{1} << 30;

  // A watcher that takes no message for so long is ended.
  std::chrono::milliseconds watch_patience = std::chrono::seconds(30);

  // Folder that backups are made in; empty: none can be made.
  std::string backup_dir = "";
};

// The allocator without its network: its services over one store. Thread-safe.
class Allocator {
 public:
  // Loads the registry in `store`.
  static absl::StatusOr<std::unique_ptr<Allocator>> Create(
      std::unique_ptr<Store> store, const AllocatorOptions& options);

  // For Server::Start. The allocator must outlive the server.
  std::vector<NamedService> services();

  // Ends the watches, which else last as long as their clients: before
  // Server::Shutdown.
  void StopWatches() { watches_.Stop(); }

  // For HealthMonitor. The allocator must outlive it.
  std::vector<Dependency> dependencies();

 private:
  Allocator(std::unique_ptr<Store> store, std::unique_ptr<Registry> registry,
            const AllocatorOptions& options);

  void AddSamples(MetricSamples* out) const;

  // Destroyed in reverse: first the work, then what it uses.
  const std::unique_ptr<CallGate> open_gate_;  // when none was given
  std::unique_ptr<Store> store_;
  std::unique_ptr<Registry> registry_;
  BitMapCache maps_;
  WatchHub watches_;
  const double max_waiting_;
  Executor executor_;
  const CallPath path_;
  RegistryServiceImpl registry_service_;
  AllocationServiceImpl allocation_service_;
  AdminServiceImpl admin_service_;
  std::shared_ptr<void> samples_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_
