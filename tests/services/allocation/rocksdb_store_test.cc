#include "services/allocation/store/rocksdb_store.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ratequant/v1/bit_map.pb.h"
#include "rocksdb/db.h"
#include "services/allocation/bit_map_table.h"
#include "services/allocation/store/keys.h"
#include "services/common/canonical.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/allocation/failing_disk.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using namespace std::chrono_literals;  // NOLINT
using ::ratequant::testing::FailingDisk;
using ::ratequant::testing::TempDir;
using ::testing::HasSubstr;

// What only a store on disk promises.
class RocksDbStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<RocksDbStore> Open(rocksdb::Env* env = nullptr) {
    auto store = RocksDbStore::Open(folder_.path(), env);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  absl::Status OpenStatus() {
    return RocksDbStore::Open(folder_.path()).status();
  }

  // Opens the database past the store, with these column families beside the
  // default one, and lets `write` at it.
  template <typename Write>
  void Raw(const std::vector<std::string>& names, Write write) {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.create_missing_column_families = true;
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    families.emplace_back("default", options);
    for (const std::string& name : names) families.emplace_back(name, options);
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(
        rocksdb::DB::Open(options, folder_.path(), families, &handles, &db)
            .ok());
    write(db, handles);
    for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle);
    delete db;
  }

  static std::vector<std::string> Tables() {
    return {kTableNames.begin(), kTableNames.end()};
  }

  void SetSchema(const std::string& value) {
    Raw(Tables(), [&](rocksdb::DB* db, const auto&) {
      ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), "schema", value).ok());
    });
  }

  // What schema version 1 laid out: no evaluations, no index.
  void WriteVersion1(const std::vector<v1::BitMap>& maps) {
    Raw({"calibrations", "models", "bit_maps"}, [&](rocksdb::DB* db,
                                                    const auto& tables) {
      const rocksdb::WriteOptions options;
      EXPECT_TRUE(db->Put(options, "schema", "1").ok());
      EXPECT_TRUE(db->Put(options, tables[1], "d/m/c", "one").ok());
      EXPECT_TRUE(db->Put(options, tables[2], "m", "two").ok());
      for (size_t i = 0; i < maps.size(); ++i) {
        EXPECT_TRUE(db->Put(options, tables[3], absl::StrCat("m/c/q", 1000 + i),
                            maps[i].SerializeAsString())
                        .ok());
      }
    });
  }

  // Bit maps with names of their own.
  static std::vector<v1::BitMap> Maps(int count) {
    std::vector<v1::BitMap> maps(count);
    for (int i = 0; i < count; ++i) {
      maps[i].set_name(BitMapName("m", Sha256Hex(absl::StrCat(i))));
      maps[i].set_code_bits(i);
    }
    return maps;
  }

  // A value that doesn't compress.
  static std::string Noise(size_t bytes) {
    std::mt19937 random(1);
    std::string noise(bytes, 0);
    for (char& c : noise) c = static_cast<char>(random());
    return noise;
  }

  // Damages the first block of the files that hold noise.
  static void FlipAByte(const std::string& folder) {
    int flipped = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".sst") continue;
      if (entry.file_size() < 50'000) continue;
      std::fstream file(entry.path(),
                        std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(20);
      const char byte = static_cast<char>(file.get());
      file.seekp(20);
      file.put(static_cast<char>(byte ^ 0x55));
      ++flipped;
    }
    ASSERT_GT(flipped, 0);
  }

  TempDir folder_;
};

TEST_F(RocksDbStoreTest, KeepsEverythingOverARestart) {
  {
    auto store = Open();
    ASSERT_TRUE(store
                    ->Write({{Table::kCalibrations, "c", "1"},
                             {Table::kModels, "m", "2"},
                             {Table::kBitMaps, "b", "3"}},
                            Durability::kSynced)
                    .ok());
  }
  auto store = Open();
  EXPECT_EQ(**store->Get(Table::kCalibrations, "c"), "1");
  EXPECT_EQ(**store->Get(Table::kModels, "m"), "2");
  EXPECT_EQ(**store->Get(Table::kBitMaps, "b"), "3");
}

TEST_F(RocksDbStoreTest, AFolderInUseIsAClearError) {
  auto store = Open();
  const absl::Status status = OpenStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_IN_USE");
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_.path()));
}

TEST_F(RocksDbStoreTest, AFolderThatCannotBeMadeIsAClearError) {
  std::ofstream(folder_.File("file")) << "not a folder";
  const absl::Status status =
      RocksDbStore::Open(folder_.File("file") + "/data").status();
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_UNUSABLE");
}

TEST_F(RocksDbStoreTest, ANewerSchemaIsRefused) {
  Open().reset();
  SetSchema("3");
  const absl::Status status = OpenStatus();
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), HasSubstr("schema version 3"));
}

TEST_F(RocksDbStoreTest, AnUnreadableSchemaIsCorruption) {
  Open().reset();
  SetSchema("one");
  EXPECT_EQ(ErrorReason(OpenStatus()), "DATA_FOLDER_CORRUPT");
}

TEST_F(RocksDbStoreTest, AnUnknownColumnFamilyIsFromANewerVersion) {
  Open().reset();
  std::vector<std::string> names = Tables();
  names.push_back("from_the_future");
  Raw(names, [](rocksdb::DB*, const auto&) {});
  const absl::Status status = OpenStatus();
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), HasSubstr("'from_the_future'"));
}

TEST_F(RocksDbStoreTest, Version1IsBroughtToThisVersionWithEverythingInIt) {
  const std::vector<v1::BitMap> maps = Maps(2500);
  WriteVersion1(maps);
  EXPECT_EQ(ErrorReason(RocksDbStore::OpenReadOnly(folder_.path()).status()),
            "DATA_FOLDER_TOO_OLD");
  for (int opened = 0; opened < 2; ++opened) {
    const auto store = Open();
    EXPECT_EQ(**store->Get(Table::kCalibrations, "d/m/c"), "one");
    EXPECT_EQ(**store->Get(Table::kModels, "m"), "two");
    const auto table = BitMapTable::Open(store.get(), 1 << 20);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_EQ((*table)->statistics().entries(), 2500);
    for (size_t i = 0; i < maps.size(); ++i) {
      const auto by_query =
          (*table)->Get({"m", "c"}, absl::StrCat("q", 1000 + i));
      const auto by_name = (*table)->Find(*ParseBitMapName(maps[i].name(), ""));
      ASSERT_TRUE(by_query.ok() && by_query->has_value()) << i;
      ASSERT_TRUE(by_name.ok() && by_name->has_value()) << i;
      EXPECT_EQ((*by_query)->SerializeAsString(), maps[i].SerializeAsString());
      EXPECT_EQ((*by_name)->SerializeAsString(), maps[i].SerializeAsString());
    }
  }
}

TEST_F(RocksDbStoreTest, AnInterruptedMigrationIsDoneAgain) {
  WriteVersion1(Maps(10));
  Open().reset();
  // As if it had stopped in the middle: half an index, and the old version.
  Raw(Tables(), [](rocksdb::DB* db, const auto& tables) {
    const rocksdb::WriteOptions options;
    EXPECT_TRUE(db->Put(options, "schema", "1").ok());
    EXPECT_TRUE(
        db->Put(options, tables[5], OrderKey(77), "9 9 x m/c/gone").ok());
    EXPECT_TRUE(db->Delete(options, tables[5], RowKey("m/c/q1003")).ok());
  });
  const auto store = Open();
  const auto table = BitMapTable::Open(store.get(), 1 << 20);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ((*table)->statistics().entries(), 10);
  EXPECT_EQ(*store->Get(Table::kBitMapIndex, OrderKey(77)), std::nullopt);
  EXPECT_TRUE(
      store->Get(Table::kBitMapIndex, RowKey("m/c/q1003"))->has_value());
}

TEST_F(RocksDbStoreTest, ReadOnlySeesAStoreInUseAndChangesNothing) {
  auto store = Open();
  const auto write = [&](const char* value) {
    return store->Write({{Table::kModels, "m", value}}, Durability::kSynced);
  };
  ASSERT_TRUE(write("1").ok());
  const auto reader = RocksDbStore::OpenReadOnly(folder_.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(**(*reader)->Get(Table::kModels, "m"), "1");
  EXPECT_FALSE(
      (*reader)->Write({{Table::kModels, "m", "3"}}, Durability::kSynced).ok());
  EXPECT_TRUE(write("2").ok());
  EXPECT_EQ(**store->Get(Table::kModels, "m"), "2");
  TempDir empty;
  EXPECT_EQ(ErrorReason(RocksDbStore::OpenReadOnly(empty.path()).status()),
            "DATA_FOLDER_UNUSABLE");
}

TEST_F(RocksDbStoreTest, ABackupIsRestoredWholeOrNotAtAll) {
  TempDir backups;
  const std::string backup = backups.File("backup");
  const std::string restored = backups.File("restored");
  {
    auto store = Open();
    ASSERT_TRUE(store
                    ->Write({{Table::kModels, "m", "1"},
                             {Table::kBitMaps, "b", Noise(1 << 16)}},
                            Durability::kBuffered)
                    .ok());
    ASSERT_TRUE(store->Backup(backup).ok());
  }
  ASSERT_TRUE(RocksDbStore::Restore(backup, restored).ok());
  {
    const auto store = RocksDbStore::Open(restored);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(**(*store)->Get(Table::kModels, "m"), "1");
    EXPECT_EQ((*store)->Get(Table::kBitMaps, "b")->value().size(), 1u << 16);
  }
  EXPECT_EQ(ErrorReason(RocksDbStore::Restore(backup, restored)),
            "DATA_FOLDER_NOT_EMPTY");
  EXPECT_EQ(ErrorReason(
                RocksDbStore::Restore(backups.File("no"), backups.File("new"))),
            "DATA_FOLDER_UNUSABLE");
  // A flipped byte in a backup is found before anything is copied.
  FlipAByte(backup);
  const absl::Status damaged =
      RocksDbStore::Restore(backup, backups.File("new"));
  EXPECT_EQ(ErrorReason(damaged), "STORE_CORRUPT") << damaged;
  EXPECT_FALSE(std::filesystem::exists(backups.File("new")));
}

TEST_F(RocksDbStoreTest, ADamagedBlockIsNamedWithTheRowThatNeededIt) {
  {
    auto store = Open();
    ASSERT_TRUE(store
                    ->Write({{Table::kBitMaps, "m/c/q", Noise(1 << 16)}},
                            Durability::kBuffered)
                    .ok());
    TempDir backups;  // writes the memtable to a file
    ASSERT_TRUE(store->Backup(backups.File("b")).ok());
  }
  FlipAByte(folder_.path());
  auto store = Open();
  const auto got = store->Get(Table::kBitMaps, "m/c/q");
  EXPECT_EQ(got.status().code(), absl::StatusCode::kDataLoss) << got.status();
  EXPECT_EQ(ErrorReason(got.status()), "STORE_CORRUPT");
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("bit_maps m/c/q"));
  EXPECT_THAT(std::string(store->Verify().message()), HasSubstr(".sst"));
}

TEST_F(RocksDbStoreTest, DamagedFilesAreCorruption) {
  {
    auto store = Open();
    ASSERT_TRUE(
        store->Write({{Table::kCalibrations, "c", "1"}}, Durability::kSynced)
            .ok());
  }
  for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
    if (file.path().filename().string().rfind("MANIFEST", 0) == 0) {
      std::ofstream(file.path(), std::ios::trunc) << "not a manifest at all";
    }
  }
  EXPECT_EQ(ErrorReason(OpenStatus()), "DATA_FOLDER_CORRUPT");
}

TEST_F(RocksDbStoreTest, AFullDiskLosesNothingThatWasAcknowledged) {
  FailingDisk disk;
  auto store = Open(disk.env());
  ASSERT_TRUE(
      store->Write({{Table::kCalibrations, "kept", "1"}}, Durability::kSynced)
          .ok());
  disk.Set(FailingDisk::Mode::kNoSpace);
  for (int i = 0; i < 3; ++i) {
    const absl::Status full = store->Write(
        {{Table::kCalibrations, "lost", "2"}}, Durability::kSynced);
    EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
    EXPECT_EQ(ErrorReason(full), "STORE_FULL");
  }
  EXPECT_EQ(**store->Get(Table::kCalibrations, "kept"), "1");
  EXPECT_EQ(*store->Get(Table::kCalibrations, "lost"), std::nullopt);
  // Room again: no restart needed, RocksDB notices within seconds.
  disk.Set(FailingDisk::Mode::kWorks);
  absl::Status after;
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  do {
    after =
        store->Write({{Table::kCalibrations, "new", "3"}}, Durability::kSynced);
    if (!after.ok()) std::this_thread::sleep_for(20ms);
  } while (!after.ok() && std::chrono::steady_clock::now() < deadline);
  EXPECT_TRUE(after.ok()) << after;
  store.reset();
  store = Open();
  EXPECT_EQ(**store->Get(Table::kCalibrations, "kept"), "1");
  EXPECT_EQ(**store->Get(Table::kCalibrations, "new"), "3");
}

TEST_F(RocksDbStoreTest, ABrokenDiskIsUnavailable) {
  FailingDisk disk;
  auto store = Open(disk.env());
  ASSERT_TRUE(
      store->Write({{Table::kCalibrations, "kept", "1"}}, Durability::kSynced)
          .ok());
  disk.Set(FailingDisk::Mode::kBroken);
  const absl::Status broken =
      store->Write({{Table::kCalibrations, "lost", "2"}}, Durability::kSynced);
  EXPECT_EQ(broken.code(), absl::StatusCode::kUnavailable) << broken;
  EXPECT_EQ(ErrorReason(broken), "STORE_ERROR");
  EXPECT_EQ(**store->Get(Table::kCalibrations, "kept"), "1");
  disk.Set(FailingDisk::Mode::kWorks);
  store.reset();
  EXPECT_EQ(**Open()->Get(Table::kCalibrations, "kept"), "1");
}

}  // namespace
}  // namespace ratequant::allocation
