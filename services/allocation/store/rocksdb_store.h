#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
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
  //
  // A folder written under an older schema is brought to this one first; that
  // can't be undone, so make a backup before a new version opens it.
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> Open(
      const std::string& folder, rocksdb::Env* env = nullptr);

  // Opens a folder to look at, also while another process has it open: what is
  // written later isn't seen, and Write and Backup fail. Errors as Open's, and
  // DATA_FOLDER_TOO_OLD (written under an older schema).
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> OpenReadOnly(
      const std::string& folder);

  // Copies a backup to `folder`, which must be empty or not exist
  // (DATA_FOLDER_NOT_EMPTY), once every checksum in it is right. Other errors
  // as OpenReadOnly's of the backup. Nothing is left of a copy that failed.
  static absl::Status Restore(const std::string& backup,
                              const std::string& folder);

  ~RocksDbStore() override;

  absl::StatusOr<std::optional<std::string>> Get(
      Table table, absl::string_view key) const override;
  absl::Status Scan(Table table, absl::string_view prefix,
                    absl::string_view after,
                    const Visitor& visit) const override;
  absl::Status Write(const std::vector<Mutation>& mutations,
                     Durability durability) override;
  absl::Status Backup(const std::string& folder) override;
  absl::Status Check() override;
  void AddSamples(MetricSamples* out) const override;

  // Reads every block of every file. DATA_LOSS (STORE_CORRUPT) names the first
  // whose checksum is wrong.
  absl::Status Verify() const;

 private:
  RocksDbStore() = default;

  enum class Access { kReadWrite, kReadOnly };
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> OpenAs(
      Access access, const std::string& folder, rocksdb::Env* env);
  rocksdb::ColumnFamilyHandle* Family(Table table) const;
  absl::Status CheckSchema(Access access, const std::string& folder);
  absl::Status SetSchema(const std::string& folder);
  absl::Status Commit(Durability durability,
                      const std::function<void(rocksdb::WriteBatch*)>& fill);

  std::unique_ptr<rocksdb::DB> db_;
  // [0] is RocksDB's default family, which holds the schema version; then one
  // for each Table.
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::atomic<bool> write_failed_ = false;  // the last one
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_STORE_H_
