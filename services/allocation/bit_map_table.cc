#include "services/allocation/bit_map_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

absl::Status Corrupt(absl::string_view table, absl::string_view key) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("stored data is damaged: ", table, " ", key));
}

// "{model}/…" of a row's key in bit_maps.
absl::string_view ModelOf(const BitMapRow& row) {
  return absl::string_view(row.key).substr(0, row.key.find('/'));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BitMapTable>> BitMapTable::Open(
    Store* store, uint64_t capacity_bytes) {
  auto table =
      std::unique_ptr<BitMapTable>(new BitMapTable(store, capacity_bytes));
  absl::Status loaded = table->Load();
  if (!loaded.ok()) return loaded;
  return table;
}

absl::Status BitMapTable::Load() {
  absl::Status bad = absl::OkStatus();
  absl::Status scanned =
      store_->Scan(Table::kBitMapIndex, kOrderPrefix, "",
                   [&](absl::string_view key, absl::string_view value) {
                     BitMapRow row;
                     if (!DecodeBitMapRow(value, &row)) {
                       bad = Corrupt("bit_map_index", key);
                       return false;
                     }
                     ++entries_;
                     bytes_ += static_cast<int64_t>(row.bytes);
                     next_sequence_ = row.sequence + 1;
                     return true;
                   });
  return scanned.ok() ? bad : scanned;
}

absl::StatusOr<std::optional<v1::BitMap>> BitMapTable::Get(
    const ChildName& calibration, const std::string& query) const {
  const std::string key = BitMapPrefix(calibration) + query;
  absl::StatusOr<std::optional<std::string>> bytes =
      store_->Get(Table::kBitMaps, key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<v1::BitMap>();
  v1::BitMap map;
  if (!map.ParseFromString(**bytes)) return Corrupt("bit_maps", key);
  return std::optional<v1::BitMap>(std::move(map));
}

absl::StatusOr<std::optional<v1::BitMap>> BitMapTable::Find(
    const ChildName& map) const {
  const absl::StatusOr<std::vector<BitMapRow>> rows = RowsOf(map);
  if (!rows.ok()) return rows.status();
  if (rows->empty()) return std::optional<v1::BitMap>();
  const std::string& key = rows->front().key;  // {model}/{calibration}/{query}
  const size_t query = key.rfind('/');
  const size_t id = map.model.size() + 1;
  return Get({map.model, key.substr(id, query - id)}, key.substr(query + 1));
}

absl::StatusOr<std::optional<BitMapRow>> BitMapTable::ReadRow(
    const std::string& key) const {
  absl::StatusOr<std::optional<std::string>> value =
      store_->Get(Table::kBitMapIndex, RowKey(key));
  if (!value.ok()) return value.status();
  if (!value->has_value()) return std::optional<BitMapRow>();
  BitMapRow row;
  if (!DecodeBitMapRow(**value, &row)) {
    return Corrupt("bit_map_index", RowKey(key));
  }
  return std::optional<BitMapRow>(std::move(row));
}

absl::StatusOr<std::vector<BitMapRow>> BitMapTable::RowsOf(
    const ChildName& map) const {
  std::vector<std::string> keys;
  const std::string prefix = MapPrefix(map);
  absl::Status scanned = store_->Scan(
      Table::kBitMapIndex, prefix, "",
      [&](absl::string_view key, absl::string_view) {
        keys.push_back(absl::StrCat(map.model, "/", key.substr(prefix.size())));
        return true;
      });
  if (!scanned.ok()) return scanned;
  std::vector<BitMapRow> rows;
  for (const std::string& key : keys) {
    absl::StatusOr<std::optional<BitMapRow>> row = ReadRow(key);
    if (!row.ok()) return row.status();
    if (row->has_value()) rows.push_back(**std::move(row));
  }
  return rows;
}

void BitMapTable::Add(absl::string_view model, const BitMapRow& row,
                      Change* change) {
  AddIndexRows(model, row, &change->mutations);
  if (row.sequence == 0) return;
  ++change->entries;
  change->bytes += static_cast<int64_t>(row.bytes);
}

void BitMapTable::Remove(absl::string_view model, const BitMapRow& row,
                         Change* change) {
  RemoveIndexRows(model, row, &change->mutations);
  if (row.sequence == 0) return;
  --change->entries;
  change->bytes -= static_cast<int64_t>(row.bytes);
}

absl::Status BitMapTable::Put(const ChildName& calibration,
                              const std::string& query, const v1::BitMap& map,
                              Change* change) {
  const absl::StatusOr<ChildName> name = ParseBitMapName(map.name(), "name");
  if (!name.ok()) return name.status();
  BitMapRow row;
  row.key = BitMapPrefix(calibration) + query;
  row.map = name->id;
  std::string value = map.SerializeAsString();
  row.bytes = row.key.size() + value.size();
  if (static_cast<int64_t>(row.bytes) > capacity_) return absl::OkStatus();
  row.sequence = next_sequence_++;
  // There already when it couldn't be read back and was solved again.
  const absl::StatusOr<std::optional<BitMapRow>> before = ReadRow(row.key);
  if (!before.ok()) return before.status();
  if (before->has_value()) {
    if ((*before)->sequence == 0) row.sequence = 0;
    Remove(calibration.model, **before, change);
  }
  change->mutations.push_back({Table::kBitMaps, row.key, std::move(value)});
  Add(calibration.model, row, change);
  return MakeRoom(row.key, change);
}

absl::Status BitMapTable::MakeRoom(const std::string& but, Change* change) {
  int64_t excess = 0;
  std::string after;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    excess = bytes_ + change->bytes - capacity_;
    after = evicted_to_;
  }
  if (excess <= 0) return absl::OkStatus();
  std::vector<BitMapRow> oldest;
  absl::Status bad = absl::OkStatus();
  absl::Status scanned =
      store_->Scan(Table::kBitMapIndex, kOrderPrefix, after,
                   [&](absl::string_view key, absl::string_view value) {
                     BitMapRow row;
                     if (!DecodeBitMapRow(value, &row)) {
                       bad = Corrupt("bit_map_index", key);
                       return false;
                     }
                     if (row.key == but) return true;
                     excess -= static_cast<int64_t>(row.bytes);
                     change->evicted_to = std::string(key);
                     oldest.push_back(std::move(row));
                     return excess > 0;
                   });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  for (const BitMapRow& row : oldest) {
    change->mutations.push_back({Table::kBitMaps, row.key, std::nullopt});
    Remove(ModelOf(row), row, change);
    ++change->evictions;
  }
  return absl::OkStatus();
}

absl::Status BitMapTable::Keep(const ChildName& map, Change* change) {
  return Move(map, true, change);
}

absl::Status BitMapTable::Release(const ChildName& map, Change* change) {
  absl::Status moved = Move(map, false, change);
  return moved.ok() ? MakeRoom("", change) : moved;
}

absl::Status BitMapTable::Move(const ChildName& map, bool keep,
                               Change* change) {
  absl::StatusOr<std::vector<BitMapRow>> rows = RowsOf(map);
  if (!rows.ok()) return rows.status();
  for (BitMapRow& row : *rows) {
    if ((row.sequence == 0) == keep) continue;
    Remove(map.model, row, change);
    row.sequence = keep ? 0 : next_sequence_++;
    Add(map.model, row, change);
  }
  return absl::OkStatus();
}

absl::Status BitMapTable::RemoveAll(const ChildName& calibration,
                                    Change* change,
                                    std::vector<std::string>* kept) {
  std::vector<BitMapRow> rows;
  absl::Status bad = absl::OkStatus();
  absl::Status scanned =
      store_->Scan(Table::kBitMapIndex, RowKey(BitMapPrefix(calibration)), "",
                   [&](absl::string_view key, absl::string_view value) {
                     BitMapRow row;
                     if (!DecodeBitMapRow(value, &row)) {
                       bad = Corrupt("bit_map_index", key);
                       return false;
                     }
                     rows.push_back(std::move(row));
                     return true;
                   });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  for (const BitMapRow& row : rows) {
    change->mutations.push_back({Table::kBitMaps, row.key, std::nullopt});
    Remove(calibration.model, row, change);
    if (row.sequence == 0) kept->push_back(row.map);
  }
  return absl::OkStatus();
}

void BitMapTable::Apply(const Change& change) {
  std::lock_guard<std::mutex> lock(mutex_);
  entries_ += change.entries;
  bytes_ += change.bytes;
  evictions_ += change.evictions;
  if (!change.evicted_to.empty()) evicted_to_ = change.evicted_to;
}

v1::CacheStatistics BitMapTable::statistics() const {
  std::lock_guard<std::mutex> lock(mutex_);
  v1::CacheStatistics out;
  out.set_entries(entries_);
  out.set_bytes(bytes_);
  out.set_capacity_bytes(capacity_);
  out.set_evictions(evictions_);
  return out;
}

}  // namespace ratequant::allocation
