#include "services/allocation/store/memory_store.h"

#include <cstddef>

#include "absl/strings/match.h"
#include "services/common/status.h"

namespace ratequant::allocation {

absl::StatusOr<std::optional<std::string>> MemoryStore::Get(
    Table table, absl::string_view key) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const Rows& rows = tables_[static_cast<size_t>(table)];
  const auto found = rows.find(std::string(key));
  if (found == rows.end()) return std::optional<std::string>();
  return std::optional<std::string>(found->second);
}

absl::Status MemoryStore::Scan(Table table, absl::string_view prefix,
                               absl::string_view after,
                               const Visitor& visit) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const Rows& rows = tables_[static_cast<size_t>(table)];
  auto row = after < prefix ? rows.lower_bound(std::string(prefix))
                            : rows.upper_bound(std::string(after));
  for (; row != rows.end() && absl::StartsWith(row->first, prefix); ++row) {
    if (!visit(row->first, row->second)) break;
  }
  return absl::OkStatus();
}

absl::Status MemoryStore::Write(const std::vector<Mutation>& mutations,
                                Durability) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Mutation& mutation : mutations) {
    Rows& rows = tables_[static_cast<size_t>(mutation.table)];
    if (mutation.value.has_value()) {
      rows[mutation.key] = *mutation.value;
    } else {
      rows.erase(mutation.key);
    }
  }
  return absl::OkStatus();
}

absl::Status MemoryStore::Backup(const std::string&) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "BACKUPS_DISABLED",
                   "this store is in memory; only one on disk can be copied");
}

}  // namespace ratequant::allocation
