#include "services/allocation/store/migration.h"

#include <string>
#include <utility>
#include <vector>

#include "ratequant/v1/bit_map.pb.h"
#include "services/allocation/store/keys.h"
#include "services/common/resource_names.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

constexpr size_t kRowsAtOnce = 1000;

using Rows = std::vector<std::pair<std::string, std::string>>;

// The next rows of a table after a key; none at its end.
absl::Status ReadRows(const Store& store, Table table, const std::string& after,
                      Rows* rows) {
  rows->clear();
  return store.Scan(table, "", after,
                    [rows](absl::string_view key, absl::string_view value) {
                      rows->emplace_back(key, value);
                      return rows->size() < kRowsAtOnce;
                    });
}

// Calls `change` with the rows of a table, some at a time, and writes what it
// gives back.
template <typename Change>
absl::Status ChangeRows(Store* store, Table table, Change change) {
  Rows rows;
  std::string after;
  while (true) {
    absl::Status read = ReadRows(*store, table, after, &rows);
    if (!read.ok() || rows.empty()) return read;
    after = rows.back().first;
    std::vector<Mutation> mutations;
    for (const auto& [key, value] : rows) change(key, value, &mutations);
    absl::Status written = store->Write(mutations, Durability::kBuffered);
    if (!written.ok()) return written;
  }
}

// Indexes the bit maps. Version 1 doesn't tell which is older: they may be
// dropped in the order of their keys.
absl::Status From1To2(Store* store) {
  // What an interrupted run has left.
  absl::Status status = ChangeRows(
      store, Table::kBitMapIndex,
      [](const std::string& key, const std::string&, auto* mutations) {
        mutations->push_back({Table::kBitMapIndex, key, std::nullopt});
      });
  if (!status.ok()) return status;
  uint64_t sequence = 0;
  return ChangeRows(
      store, Table::kBitMaps,
      [&sequence](const std::string& key, const std::string& value,
                  auto* mutations) {
        v1::BitMap map;
        absl::StatusOr<ChildName> name =
            map.ParseFromString(value) ? ParseBitMapName(map.name(), "name")
                                       : absl::DataLossError("isn't a bit map");
        if (!name.ok()) {
          // Not worth failing for: it is solved again when it is asked for.
          spdlog::warn("dropping bit_maps {}: {}", key,
                       std::string(name.status().message()));
          mutations->push_back({Table::kBitMaps, key, std::nullopt});
          return;
        }
        AddIndexRows(name->model,
                     {key, name->id, ++sequence, key.size() + value.size()},
                     mutations);
      });
}

}  // namespace

absl::Status Migrate(int from, Store* store) {
  return from < 2 ? From1To2(store) : absl::OkStatus();
}

}  // namespace ratequant::allocation
