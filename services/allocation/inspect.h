#ifndef RATEQUANT_SERVICES_ALLOCATION_INSPECT_H_
#define RATEQUANT_SERVICES_ALLOCATION_INSPECT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/allocation/store/store.h"

namespace ratequant::allocation {

// What a look through a whole store found.
struct Inspection {
  // Rows and bytes of every table, then its models: for people.
  std::string text;
  // "bit_maps m/3f…/77…": rows that aren't what their table holds.
  std::vector<std::string> damaged;
};

// Reads and parses every row. Errors are the store's.
absl::StatusOr<Inspection> Inspect(const Store& store);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_INSPECT_H_
