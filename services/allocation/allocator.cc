#include "services/allocation/allocator.h"

#include <utility>

namespace ratequant::allocation {
namespace {

constexpr size_t kMaxWaitingCalls = 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<Allocator>> Allocator::Create(
    std::unique_ptr<Store> store, int threads) {
  absl::StatusOr<std::unique_ptr<Registry>> registry =
      Registry::Open(store.get());
  if (!registry.ok()) return registry.status();
  return std::unique_ptr<Allocator>(
      new Allocator(std::move(store), *std::move(registry), threads));
}

Allocator::Allocator(std::unique_ptr<Store> store,
                     std::unique_ptr<Registry> registry, int threads)
    : store_(std::move(store)),
      registry_(std::move(registry)),
      executor_(threads, kMaxWaitingCalls),
      registry_service_(registry_.get(), &executor_),
      allocation_service_(registry_.get(), &executor_) {}

std::vector<NamedService> Allocator::services() {
  return {{&registry_service_, v1::RegistryService::service_full_name()},
          {&allocation_service_, v1::AllocationService::service_full_name()}};
}

}  // namespace ratequant::allocation
