#include "services/allocation/allocator.h"

#include <utility>

namespace ratequant::allocation {
namespace {

void AddCacheSamples(const char* tier, const v1::CacheStatistics& cache,
                     MetricSamples* out) {
  const MetricLabels labels = {{"tier", tier}};
  out->Counter("ratequant_bit_map_cache_hits_total",
               "Lookups of bit maps that found one", cache.hits(), labels);
  out->Counter("ratequant_bit_map_cache_misses_total",
               "Lookups of bit maps that found none", cache.misses(), labels);
  out->Counter("ratequant_bit_map_cache_evictions_total",
               "Bit maps dropped to make room", cache.evictions(), labels);
  out->Gauge("ratequant_bit_map_cache_entries", "Bit maps held",
             cache.entries(), labels);
  out->Gauge("ratequant_bit_map_cache_bytes", "Bytes they take", cache.bytes(),
             labels);
  out->Gauge("ratequant_bit_map_cache_capacity_bytes",
             "Most bytes they may take", cache.capacity_bytes(), labels);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Allocator>> Allocator::Create(
    std::unique_ptr<Store> store, const AllocatorOptions& options) {
  absl::StatusOr<std::unique_ptr<Registry>> registry =
      Registry::Open(store.get(), {.bit_map_bytes = options.store_bytes});
  if (!registry.ok()) return registry.status();
  return std::unique_ptr<Allocator>(
      new Allocator(std::move(store), *std::move(registry), options));
}

Allocator::Allocator(std::unique_ptr<Store> store,
                     std::unique_ptr<Registry> registry,
                     const AllocatorOptions& options)
    : open_gate_(options.gate == nullptr ? std::make_unique<CallGate>()
                                         : nullptr),
      store_(std::move(store)),
      registry_(std::move(registry)),
      maps_(registry_.get(), options.memory_bytes),
      watches_(&maps_, options.watch_patience, options.max_watchers),
      max_waiting_(static_cast<double>(options.max_waiting)),
      executor_(options.threads, options.max_waiting),
      path_{open_gate_ == nullptr ? options.gate : open_gate_.get(), &executor_,
            options.max_wait},
      registry_service_(registry_.get(), path_),
      allocation_service_(registry_.get(), &maps_, &watches_, path_),
      admin_service_(store_.get(), &maps_, &watches_, path_,
                     options.backup_dir) {
  registry_->SetListener(
      [this](const std::string& model) { watches_.Changed(model); });
  samples_ =
      Metrics::Get().Sample([this](MetricSamples* out) { AddSamples(out); });
}

std::vector<Dependency> Allocator::dependencies() {
  return {{.name = "store", .required = true, .check = [this] {
             return store_->Check();
           }}};
}

void Allocator::AddSamples(MetricSamples* out) const {
  v1::Statistics now = maps_.statistics();
  watches_.AddStatistics(&now);
  AddCacheSamples("memory", now.memory(), out);
  AddCacheSamples("disk", now.disk(), out);
  out->Counter("ratequant_solves_total", "Bit maps solved", now.solves());
  out->Counter("ratequant_shared_solves_total",
               "Misses that waited for another's solve", now.shared_solves());
  out->Gauge("ratequant_watchers", "Streams of WatchBitMap", now.watchers());
  out->Counter("ratequant_coalesced_updates_total",
               "Maps a slow watcher never saw because a newer one came",
               now.coalesced_updates());
  out->Counter("ratequant_slow_watchers_ended_total",
               "Watchers that took too long to read",
               now.slow_watchers_ended());
  out->Gauge("ratequant_queue_waiting", "Work that waits for a thread",
             static_cast<double>(executor_.waiting()));
  out->Gauge("ratequant_queue_capacity", "Most work that may wait",
             max_waiting_);
  store_->AddSamples(out);
}

std::vector<NamedService> Allocator::services() {
  return {{&registry_service_, v1::RegistryService::service_full_name()},
          {&allocation_service_, v1::AllocationService::service_full_name()},
          {&admin_service_, v1::AdminService::service_full_name()}};
}

}  // namespace ratequant::allocation
