#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_

#include <memory>
#include <string>
#include <vector>

#include "rocksdb/db.h"
#include "services/allocation/store/store.h"

namespace ratequant::allocation {

// A store in a folder on disk, one column family a table. Thread-safe.
class RocksDbStore : public Store {
 public:
  // Opens `folder`, which is made when it doesn't exist. Errors, all
  // FAILED_PRECONDITION and naming the folder: DATA_FOLDER_UNUSABLE (it can't
  // be made, read or written), DATA_FOLDER_IN_USE (another process has it
  // open), DATA_FOLDER_CORRUPT, DATA_FOLDER_TOO_NEW (written by a later
  // version with another schema). `env` replaces the file system, for tests of
  // failing disks; it must outlive the store.
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> Open(
      const std::string& folder, rocksdb::Env* env = nullptr);

  ~RocksDbStore() override;

  absl::StatusOr<std::optional<std::string>> Get(
      Table table, absl::string_view key) const override;
  absl::Status Scan(Table table, absl::string_view prefix,
                    absl::string_view after,
                    const Visitor& visit) const override;
  absl::Status Write(const std::vector<Mutation>& mutations,
                     Durability durability) override;

 private:
  RocksDbStore() = default;

  rocksdb::ColumnFamilyHandle* Family(Table table) const;
  absl::Status CheckSchema(const std::string& folder);

  std::unique_ptr<rocksdb::DB> db_;
  // [0] is RocksDB's default family, which holds the schema version; then one
  // for each Table.
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_
