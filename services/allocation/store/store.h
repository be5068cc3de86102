#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/common/metrics.h"

namespace ratequant::allocation {

// What a key belongs to.
enum class Table {
  kCalibrations,
  kModels,
  kBitMaps,
  kEvaluations,
  kBitMapIndex,
};
inline constexpr int kTables = 5;

// Names of the tables, in their order; of column families in RocksDB too.
// Persisted: do not change.
inline constexpr std::array<const char*, kTables> kTableNames = {
    "calibrations", "models", "bit_maps", "evaluations", "bit_map_index"};
inline const char* TableName(Table table) {
  return kTableNames[static_cast<size_t>(table)];
}

// One change: a value put, or a key removed.
struct Mutation {
  Table table = Table::kCalibrations;
  std::string key;
  std::optional<std::string> value;  // nullopt: remove
};

// When a write has to survive the machine losing power.
enum class Durability {
  kBuffered,  // survives the end of the process
  kSynced,    // survives a power failure once Write has returned OK
};

// Ordered keys (not empty) and values in a few tables, with atomic writes.
//
// Thread-safe. Errors: UNAVAILABLE (STORE_ERROR) when the storage fails,
// RESOURCE_EXHAUSTED (STORE_FULL) when it has no room, DATA_LOSS
// (STORE_CORRUPT) when what was stored can't be read back. After a Write that
// failed reads see what they saw before; what it meant to store may still
// appear after a restart.
class Store {
 public:
  virtual ~Store() = default;

  // The value of a key; nullopt when there is none.
  virtual absl::StatusOr<std::optional<std::string>> Get(
      Table table, absl::string_view key) const = 0;

  // Calls `visit` with every key that begins with `prefix` and comes after
  // `after` (bytewise), in ascending order, until it answers false. The views
  // last for the call. `visit` must not call back into the store.
  using Visitor =
      std::function<bool(absl::string_view key, absl::string_view value)>;
  virtual absl::Status Scan(Table table, absl::string_view prefix,
                            absl::string_view after,
                            const Visitor& visit) const = 0;

  // Applies all changes, in order, or none.
  virtual absl::Status Write(const std::vector<Mutation>& mutations,
                             Durability durability) = 0;

  // Copies everything written before the call into a new folder on disk, while
  // others read and write. ALREADY_EXISTS (BACKUP_EXISTS) when the folder is
  // there; FAILED_PRECONDITION (BACKUPS_DISABLED) from a store that isn't on
  // disk. Nothing is left of a copy that failed.
  virtual absl::Status Backup(const std::string& folder) = 0;

  // Whether it can read, and takes writes: after one that failed it tries.
  virtual absl::Status Check() = 0;

  // Samples of what is inside.
  virtual void AddSamples(MetricSamples* out) const = 0;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_
