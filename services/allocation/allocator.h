#ifndef RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_
#define RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/allocation/allocation_service.h"
#include "services/allocation/executor.h"
#include "services/allocation/registry.h"
#include "services/allocation/registry_service.h"
#include "services/allocation/store/store.h"
#include "services/common/server.h"

namespace ratequant::allocation {

// The allocator without its network: both services over one store. Thread-safe.
class Allocator {
 public:
  // Loads the registry in `store`. `threads` work on what isn't in memory.
  static absl::StatusOr<std::unique_ptr<Allocator>> Create(
      std::unique_ptr<Store> store, int threads);

  // For Server::Start. The allocator must outlive the server.
  std::vector<NamedService> services();

 private:
  Allocator(std::unique_ptr<Store> store, std::unique_ptr<Registry> registry,
            int threads);

  // Destroyed in reverse: first the work, then what it uses.
  std::unique_ptr<Store> store_;
  std::unique_ptr<Registry> registry_;
  Executor executor_;
  RegistryServiceImpl registry_service_;
  AllocationServiceImpl allocation_service_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_ALLOCATOR_H_
