#ifndef RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_TABLE_H_
#define RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_TABLE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ratequant/v1/admin_service.pb.h"
#include "ratequant/v1/bit_map.pb.h"
#include "services/allocation/store/keys.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"

namespace ratequant::allocation {

// The bit maps in a store: a cache, bounded in bytes, whose oldest go first.
// Maps with evaluations are kept beside it, whatever their number, until their
// calibration goes.
//
// Thread-safe, but changes are in two steps: one of the methods that fill a
// Change, then Apply once the store has written it; the caller lets one change
// happen at a time.
class BitMapTable {
 public:
  // Reads the sizes of what `store` holds; it must outlive the table.
  static absl::StatusOr<std::unique_ptr<BitMapTable>> Open(
      Store* store, uint64_t capacity_bytes);

  // The map solved for a query; nullopt when there is none. DATA_LOSS
  // (STORE_CORRUPT) names a row that isn't a bit map.
  absl::StatusOr<std::optional<v1::BitMap>> Get(const ChildName& calibration,
                                                const std::string& query) const;

  // A map by its own name; nullopt when there is none.
  absl::StatusOr<std::optional<v1::BitMap>> Find(const ChildName& map) const;

  // Mutations to write, and what they do to the table's size.
  struct Change {
    std::vector<Mutation> mutations;
    int64_t entries = 0;
    int64_t bytes = 0;
    int64_t evictions = 0;
    std::string evicted_to;  // key of the last row that was dropped
  };

  // Stores a map, dropping the oldest to make room. One that alone is larger
  // than the capacity isn't stored: the change is empty then.
  absl::Status Put(const ChildName& calibration, const std::string& query,
                   const v1::BitMap& map, Change* change);

  // Keeps a map from being dropped, or lets it be dropped again.
  absl::Status Keep(const ChildName& map, Change* change);
  absl::Status Release(const ChildName& map, Change* change);

  // Removes all maps solved from a calibration; `kept` gets the ids of those
  // that were kept.
  absl::Status RemoveAll(const ChildName& calibration, Change* change,
                         std::vector<std::string>* kept);

  void Apply(const Change& change);

  // Without hits and misses, which its callers count.
  v1::CacheStatistics statistics() const;

 private:
  BitMapTable(Store* store, uint64_t capacity_bytes)
      : store_(store), capacity_(static_cast<int64_t>(capacity_bytes)) {}

  absl::Status Load();
  absl::StatusOr<std::optional<BitMapRow>> ReadRow(
      const std::string& key) const;
  absl::StatusOr<std::vector<BitMapRow>> RowsOf(const ChildName& map) const;
  // Moves a map's rows out of (`keep`) or into the order of dropping.
  absl::Status Move(const ChildName& map, bool keep, Change* change);
  void Add(absl::string_view model, const BitMapRow& row, Change* change);
  void Remove(absl::string_view model, const BitMapRow& row, Change* change);
  // Drops the oldest rows, except the one of key `but`.
  absl::Status MakeRoom(const std::string& but, Change* change);

  Store* const store_;
  const int64_t capacity_;
  uint64_t next_sequence_ = 1;  // only for the one that changes
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  int64_t entries_ = 0;
  int64_t bytes_ = 0;
  int64_t evictions_ = 0;
  // Rows up to this one have been dropped: a scan that begins there doesn't
  // wade through what the store remembers of them.
  std::string evicted_to_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_BIT_MAP_TABLE_H_
