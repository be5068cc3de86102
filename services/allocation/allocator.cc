#include "services/allocation/allocator.h"

#include <utility>

namespace ratequant::allocation {
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
      executor_(options.threads, options.max_waiting),
      path_{open_gate_ == nullptr ? options.gate : open_gate_.get(), &executor_,
            options.max_wait},
      registry_service_(registry_.get(), path_),
      allocation_service_(registry_.get(), &maps_, &watches_, path_),
      admin_service_(store_.get(), &maps_, &watches_, path_,
                     options.backup_dir) {
  registry_->SetListener(
      [this](const std::string& model) { watches_.Changed(model); });
}

std::vector<NamedService> Allocator::services() {
  return {{&registry_service_, v1::RegistryService::service_full_name()},
          {&allocation_service_, v1::AllocationService::service_full_name()},
          {&admin_service_, v1::AdminService::service_full_name()}};
}

}  // namespace ratequant::allocation
