#include "services/allocation/store/rocksdb_store.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/options.h"
#include "rocksdb/utilities/checkpoint.h"
#include "services/allocation/store/folder_copy.h"
#include "services/allocation/store/migration.h"
#include "services/allocation/store/rocksdb_metrics.h"
#include "services/allocation/store/rocksdb_options.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

constexpr char kSchemaKey[] = "schema";

absl::Status FolderError(const char* reason, const std::string& folder,
                         absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason,
                   absl::StrCat("data folder ", folder, ": ", what),
                   {{"folder", folder}});
}

absl::Status OpenError(const rocksdb::Status& status,
                       const std::string& folder) {
  const std::string text = status.ToString();
  const bool locked =
      status.IsIOError() &&
      (text.find("While lock file") != std::string::npos ||
       text.find("lock hold by current process") != std::string::npos);
  if (locked && text.find("Permission denied") == std::string::npos) {
    return FolderError("DATA_FOLDER_IN_USE", folder,
                       "another process has it open; stop that one or choose "
                       "another folder");
  }
  if (status.IsCorruption()) {
    return FolderError("DATA_FOLDER_CORRUPT", folder,
                       absl::StrCat("is damaged and can't be opened (", text,
                                    "); restore it from a copy, or move it "
                                    "away and calibrate again"));
  }
  return FolderError("DATA_FOLDER_UNUSABLE", folder, text);
}

// What failed is named: "reading bit_maps m/1f…".
absl::Status StoreError(const rocksdb::Status& status,
                        absl::string_view doing) {
  const std::string text = absl::StrCat(doing, ": ", status.ToString());
  if (status.IsNoSpace()) {
    return MakeError(absl::StatusCode::kResourceExhausted, "STORE_FULL",
                     absl::StrCat("no room left to store this; nothing was "
                                  "changed (",
                                  text, ")"));
  }
  if (status.IsCorruption()) {
    return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                     absl::StrCat("stored data is damaged (", text, ")"));
  }
  return MakeError(
      absl::StatusCode::kUnavailable, "STORE_ERROR",
      absl::StrCat("the store failed; nothing was changed (", text, ")"));
}

// Lists the column families. Those this version doesn't know were made by a
// later one.
absl::Status CheckFamilies(const rocksdb::Options& options,
                           const std::string& folder,
                           std::vector<std::string>* names) {
  const rocksdb::Status listed =
      rocksdb::DB::ListColumnFamilies(options, folder, names);
  if (listed.IsPathNotFound() || listed.IsNotFound()) return absl::OkStatus();
  if (!listed.ok()) {
    // No CURRENT file: a new folder.
    if (!options.env->FileExists(folder + "/CURRENT").ok()) {
      return absl::OkStatus();
    }
    return OpenError(listed, folder);
  }
  for (const std::string& name : *names) {
    if (name != kDefaultFamily &&
        std::find(kTableNames.begin(), kTableNames.end(), name) ==
            kTableNames.end()) {
      return FolderError("DATA_FOLDER_TOO_NEW", folder,
                         absl::StrCat("has a column family '", name,
                                      "' this version doesn't know; use the "
                                      "version that wrote it"));
    }
  }
  return absl::OkStatus();
}

// Files without RocksDB's CURRENT: what was a store isn't one any more.
absl::Status CheckFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return FolderError("DATA_FOLDER_UNUSABLE", folder,
                       absl::StrCat("can't be made: ", error.message()));
  }
  if (std::filesystem::exists(folder + "/CURRENT", error)) {
    return absl::OkStatus();
  }
  std::filesystem::directory_iterator files(folder, error), end;
  if (error) {
    return FolderError("DATA_FOLDER_UNUSABLE", folder,
                       absl::StrCat("can't be read: ", error.message()));
  }
  const bool tables = std::any_of(files, end, [](const auto& file) {
    return file.path().extension() == ".sst";
  });
  if (!tables) return absl::OkStatus();
  return FolderError("DATA_FOLDER_CORRUPT", folder,
                     "holds a store's tables but its CURRENT file is missing; "
                     "restore it from a copy");
}

rocksdb::Slice ToSlice(absl::string_view text) {
  return rocksdb::Slice(text.data(), text.size());
}

absl::string_view FromSlice(const rocksdb::Slice& slice) {
  return absl::string_view(slice.data(), slice.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RocksDbStore>> RocksDbStore::Open(
    const std::string& folder, rocksdb::Env* env) {
  absl::Status usable = CheckFolder(folder);
  if (!usable.ok()) return usable;
  return OpenAs(Access::kReadWrite, folder, env);
}

absl::StatusOr<std::unique_ptr<RocksDbStore>> RocksDbStore::OpenReadOnly(
    const std::string& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder + "/CURRENT", ignored)) {
    return FolderError("DATA_FOLDER_UNUSABLE", folder, "holds no store");
  }
  return OpenAs(Access::kReadOnly, folder, nullptr);
}

absl::StatusOr<std::unique_ptr<RocksDbStore>> RocksDbStore::OpenAs(
    Access access, const std::string& folder, rocksdb::Env* env) {
  const rocksdb::Options options = DatabaseOptions(env);
  std::vector<std::string> names;
  absl::Status known = CheckFamilies(options, folder, &names);
  if (!known.ok()) return known;
  std::vector<rocksdb::ColumnFamilyDescriptor> families = Families(options);
  auto store = std::unique_ptr<RocksDbStore>(new RocksDbStore());
  rocksdb::DB* db = nullptr;
  rocksdb::Status opened;
  if (access == Access::kReadWrite) {
    opened =
        rocksdb::DB::Open(options, folder, families, &store->families_, &db);
  } else {
    // Only a store of this schema has them all.
    families.erase(std::remove_if(families.begin(), families.end(),
                                  [&names](const auto& family) {
                                    return std::find(names.begin(), names.end(),
                                                     family.name) ==
                                           names.end();
                                  }),
                   families.end());
    opened = rocksdb::DB::OpenForReadOnly(options, folder, families,
                                          &store->families_, &db);
  }
  if (!opened.ok()) return OpenError(opened, folder);
  store->db_.reset(db);
  absl::Status schema = store->CheckSchema(access, folder);
  if (!schema.ok()) return schema;
  return store;
}

absl::Status RocksDbStore::Restore(const std::string& backup,
                                   const std::string& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder, error) &&
      !std::filesystem::is_empty(folder, error)) {
    return FolderError("DATA_FOLDER_NOT_EMPTY", folder,
                       "isn't empty; a backup is restored to a new folder");
  }
  {
    const auto store = OpenReadOnly(backup);
    if (!store.ok()) return store.status();
    absl::Status sound = (*store)->Verify();
    if (!sound.ok()) return sound;
  }
  absl::Status copied = CopyFolder(backup, folder);
  if (copied.ok()) return copied;
  return FolderError("DATA_FOLDER_UNUSABLE", folder, copied.message());
}

RocksDbStore::~RocksDbStore() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    db_->DestroyColumnFamilyHandle(family);
  }
  const rocksdb::Status closed = db_->Close();
  if (!closed.ok()) spdlog::warn("closing the store: {}", closed.ToString());
}

absl::Status RocksDbStore::SetSchema(const std::string& folder) {
  rocksdb::WriteOptions sync;
  sync.sync = true;
  const rocksdb::Status put =
      db_->Put(sync, kSchemaKey, absl::StrCat(kSchemaVersion));
  return put.ok() ? absl::OkStatus() : OpenError(put, folder);
}

absl::Status RocksDbStore::CheckSchema(Access access,
                                       const std::string& folder) {
  std::string value;
  const rocksdb::Status got =
      db_->Get(rocksdb::ReadOptions(), kSchemaKey, &value);
  if (got.IsNotFound()) {
    for (size_t i = 1; i < families_.size(); ++i) {
      std::unique_ptr<rocksdb::Iterator> rows(
          db_->NewIterator(rocksdb::ReadOptions(), families_[i]));
      rows->SeekToFirst();
      if (rows->Valid()) {
        return FolderError("DATA_FOLDER_CORRUPT", folder,
                           "holds data but no schema version");
      }
    }
    if (access == Access::kReadWrite) return SetSchema(folder);
    return FolderError("DATA_FOLDER_UNUSABLE", folder, "holds no store");
  }
  if (!got.ok()) return OpenError(got, folder);
  int schema = 0;
  if (!absl::SimpleAtoi(value, &schema) || schema < 1) {
    return FolderError(
        "DATA_FOLDER_CORRUPT", folder,
        absl::StrCat("has the schema version '", value, "', which isn't one"));
  }
  if (schema > kSchemaVersion) {
    return FolderError(
        "DATA_FOLDER_TOO_NEW", folder,
        absl::StrCat("was written with schema version ", schema,
                     "; this version reads up to ", kSchemaVersion,
                     ", use the version that wrote it"));
  }
  if (schema == kSchemaVersion) return absl::OkStatus();
  if (access == Access::kReadOnly) {
    return FolderError(
        "DATA_FOLDER_TOO_OLD", folder,
        absl::StrCat("was written with schema version ", schema,
                     "; ratequant-allocator brings it to version ",
                     kSchemaVersion, " when it starts on it"));
  }
  spdlog::info("data folder {}: from schema version {} to {}", folder, schema,
               kSchemaVersion);
  absl::Status migrated = Migrate(schema, this);
  return migrated.ok() ? SetSchema(folder) : migrated;
}

rocksdb::ColumnFamilyHandle* RocksDbStore::Family(Table table) const {
  return families_[1 + static_cast<size_t>(table)];
}

absl::StatusOr<std::optional<std::string>> RocksDbStore::Get(
    Table table, absl::string_view key) const {
  std::string value;
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), Family(table), ToSlice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) {
    return StoreError(status,
                      absl::StrCat("reading ", TableName(table), " ", key));
  }
  return std::optional<std::string>(std::move(value));
}

absl::Status RocksDbStore::Scan(Table table, absl::string_view prefix,
                                absl::string_view after,
                                const Visitor& visit) const {
  std::unique_ptr<rocksdb::Iterator> rows(
      db_->NewIterator(rocksdb::ReadOptions(), Family(table)));
  rows->Seek(ToSlice(after < prefix ? prefix : after));
  if (after >= prefix && rows->Valid() && FromSlice(rows->key()) == after) {
    rows->Next();
  }
  for (; rows->Valid() && rows->key().starts_with(ToSlice(prefix));
       rows->Next()) {
    if (!visit(FromSlice(rows->key()), FromSlice(rows->value()))) break;
  }
  if (rows->status().ok()) return absl::OkStatus();
  return StoreError(rows->status(), absl::StrCat("reading ", TableName(table),
                                                 " ", prefix, "*"));
}

absl::Status RocksDbStore::Write(const std::vector<Mutation>& mutations,
                                 Durability durability) {
  return Commit(durability, [&](rocksdb::WriteBatch* batch) {
    for (const Mutation& mutation : mutations) {
      if (mutation.value.has_value()) {
        batch->Put(Family(mutation.table), mutation.key, *mutation.value);
      } else {
        batch->Delete(Family(mutation.table), mutation.key);
      }
    }
  });
}

absl::Status RocksDbStore::Commit(
    Durability durability,
    const std::function<void(rocksdb::WriteBatch*)>& fill) {
  rocksdb::WriteOptions options;
  options.sync = durability == Durability::kSynced;
  const auto write = [&] {
    rocksdb::WriteBatch batch;
    fill(&batch);
    return db_->Write(options, &batch);
  };
  rocksdb::Status status = write();
  // After a failed write RocksDB refuses all others until it is told to resume,
  // which works as soon as the disk does again. A full disk it watches itself,
  // and takes writes again seconds after there is room; told to resume while
  // there is none, it may give up for good.
  if (!status.ok() && !status.IsNoSpace() && db_->Resume().ok()) {
    status = write();
  }
  write_failed_ = !status.ok();
  return status.ok() ? absl::OkStatus() : StoreError(status, "writing");
}

absl::Status RocksDbStore::Backup(const std::string& folder) {
  if (db_->GetEnv()->FileExists(folder).ok()) {
    return MakeError(absl::StatusCode::kAlreadyExists, "BACKUP_EXISTS",
                     absl::StrCat("there is a folder ", folder, " already"),
                     {{"folder", folder}});
  }
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (status.ok()) status = checkpoint->CreateCheckpoint(folder);
  if (status.ok()) return absl::OkStatus();
  return StoreError(status, absl::StrCat("backing up to ", folder));
}

absl::Status RocksDbStore::Verify() const {
  const rocksdb::Status status = db_->VerifyChecksum();
  return status.ok() ? absl::OkStatus() : StoreError(status, "verifying");
}

absl::Status RocksDbStore::Check() {
  std::string schema;
  const rocksdb::Status read =
      db_->Get(rocksdb::ReadOptions(), kSchemaKey, &schema);
  if (!read.ok()) return StoreError(read, "reading the schema version");
  uint64_t stopped = 0;
  db_->GetIntProperty(rocksdb::DB::Properties::kIsWriteStopped, &stopped);
  if (stopped != 0) {
    return MakeError(absl::StatusCode::kUnavailable, "STORE_ERROR",
                     "the store takes no writes");
  }
  if (!write_failed_) return absl::OkStatus();
  // Whether it is over: nobody else may write before this says so.
  return Commit(Durability::kSynced, [&](rocksdb::WriteBatch* batch) {
    batch->Put(kSchemaKey, schema);
  });
}

void RocksDbStore::AddSamples(MetricSamples* out) const {
  AddRocksDbSamples(db_.get(), families_, out);
  SampleDisk("data", db_->GetName(), out);
}

}  // namespace ratequant::allocation
