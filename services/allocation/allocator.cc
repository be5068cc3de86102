#include "services/allocation/allocator.h"

#include <utility>

namespace ratequant::allocation {
namespace {

constexpr size_t kMaxWaitingCalls = 1024;

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
    : store_(std::move(store)),
      registry_(std::move(registry)),
      maps_(registry_.get(), options.memory_bytes),
      watches_(&maps_, options.watch_patience),
      executor_(options.threads, kMaxWaitingCalls),
      registry_service_(registry_.get(), &executor_),
      allocation_service_(registry_.get(), &maps_, &watches_, &executor_),
      admin_service_(store_.get(), &maps_, &watches_, &executor_,
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
