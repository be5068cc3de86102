#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_MEMORY_STORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_MEMORY_STORE_H_

#include <array>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "services/allocation/store/store.h"

namespace ratequant::allocation {

// A store that ends with the process. Thread-safe.
class MemoryStore : public Store {
 public:
  absl::StatusOr<std::optional<std::string>> Get(
      Table table, absl::string_view key) const override;
  absl::Status Scan(Table table, absl::string_view prefix,
                    absl::string_view after,
                    const Visitor& visit) const override;
  absl::Status Write(const std::vector<Mutation>& mutations,
                     Durability durability) override;
  absl::Status Backup(const std::string& folder) override;
  absl::Status Check() override { return absl::OkStatus(); }
  void AddSamples(MetricSamples*) const override {}

 private:
  using Rows = std::map<std::string, std::string>;

  mutable std::mutex mutex_;
  std::array<Rows, kTables> tables_;  // guarded by mutex_
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_MEMORY_STORE_H_
