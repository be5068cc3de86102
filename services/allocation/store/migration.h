#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_MIGRATION_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_MIGRATION_H_

#include "absl/status/status.h"
#include "services/allocation/store/store.h"

namespace ratequant::allocation {

// What keys.h describes. Persisted. Version 1 had no evaluations and no index
// of bit maps.
inline constexpr int kSchemaVersion = 2;

// Brings the rows of a store from schema version `from`, 1 or later, to
// kSchemaVersion. Can be run again when it was interrupted. The caller writes
// the new version, synced, once this is OK.
absl::Status Migrate(int from, Store* store);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_MIGRATION_H_
