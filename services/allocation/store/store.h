#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::allocation {

// What a key belongs to. Column families of the same names in RocksDB: the
// names are persisted, do not change.
enum class Table { kCalibrations, kModels, kBitMaps };

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
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_STORE_H_
