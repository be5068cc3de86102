#include "services/allocation/store/store.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "services/allocation/store/memory_store.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/status.h"
#include "tests/services/allocation/failing_disk.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using namespace std::chrono_literals;  // NOLINT
using ::ratequant::testing::FailingDisk;
using ::ratequant::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What every store promises, run against each of them.
enum class Kind { kMemory, kRocksDb };

class StoreTest : public ::testing::TestWithParam<Kind> {
 protected:
  StoreTest() {
    if (GetParam() == Kind::kMemory) {
      store_ = std::make_unique<MemoryStore>();
      return;
    }
    auto opened = RocksDbStore::Open(folder_.path());
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  void Put(Table table, const std::string& key, const std::string& value) {
    ASSERT_TRUE(
        store_->Write({{table, key, value}}, Durability::kBuffered).ok());
  }

  std::vector<std::string> Keys(Table table, const std::string& prefix,
                                const std::string& after = "") {
    std::vector<std::string> keys;
    EXPECT_TRUE(store_
                    ->Scan(table, prefix, after,
                           [&](absl::string_view key, absl::string_view) {
                             keys.emplace_back(key);
                             return true;
                           })
                    .ok());
    return keys;
  }

  TempDir folder_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreTest, GetsWhatWasPutAndNothingElse) {
  const std::string binary("\0\xff\n", 3);
  Put(Table::kCalibrations, "a", binary);
  Put(Table::kCalibrations, "empty", "");
  EXPECT_EQ(**store_->Get(Table::kCalibrations, "a"), binary);
  EXPECT_EQ(**store_->Get(Table::kCalibrations, "empty"), "");
  EXPECT_EQ(*store_->Get(Table::kCalibrations, "b"), std::nullopt);
  EXPECT_EQ(*store_->Get(Table::kModels, "a"), std::nullopt);
  EXPECT_EQ(*store_->Get(Table::kBitMaps, "a"), std::nullopt);
  Put(Table::kCalibrations, "a", "new");
  EXPECT_EQ(**store_->Get(Table::kCalibrations, "a"), "new");
}

TEST_P(StoreTest, WritesAllMutationsInOrder) {
  for (Durability durability : {Durability::kBuffered, Durability::kSynced}) {
    ASSERT_TRUE(store_
                    ->Write({{Table::kModels, "m", "1"},
                             {Table::kBitMaps, "b", "2"},
                             {Table::kModels, "m", "3"},
                             {Table::kModels, "gone", "4"},
                             {Table::kModels, "gone", std::nullopt},
                             {Table::kModels, "never", std::nullopt}},
                            durability)
                    .ok());
    EXPECT_EQ(**store_->Get(Table::kModels, "m"), "3");
    EXPECT_EQ(**store_->Get(Table::kBitMaps, "b"), "2");
    EXPECT_EQ(*store_->Get(Table::kModels, "gone"), std::nullopt);
  }
  EXPECT_TRUE(store_->Write({}, Durability::kSynced).ok());
}

TEST_P(StoreTest, ScansAPrefixInByteOrderAfterAKey) {
  for (const char* key : {"b/2", "a/1", "b/10", "b/1", "c", "b", "b\xff"}) {
    Put(Table::kModels, key, key);
  }
  EXPECT_THAT(Keys(Table::kModels, "b/"), ElementsAre("b/1", "b/10", "b/2"));
  EXPECT_THAT(Keys(Table::kModels, "b/", "b/1"), ElementsAre("b/10", "b/2"));
  EXPECT_THAT(Keys(Table::kModels, "b/", "b/11"), ElementsAre("b/2"));
  EXPECT_THAT(Keys(Table::kModels, "b/", "a"),
              ElementsAre("b/1", "b/10", "b/2"));
  EXPECT_THAT(Keys(Table::kModels, "b/", "b/2"), IsEmpty());
  EXPECT_THAT(Keys(Table::kModels, "b/", "z"), IsEmpty());
  EXPECT_THAT(Keys(Table::kModels, "x"), IsEmpty());
  EXPECT_THAT(Keys(Table::kModels, ""),
              ElementsAre("a/1", "b", "b/1", "b/10", "b/2", "b\xff", "c"));
}

TEST_P(StoreTest, AScanStopsWhenTold) {
  for (const char* key : {"1", "2", "3"}) Put(Table::kBitMaps, key, "v");
  std::vector<std::string> seen;
  ASSERT_TRUE(store_
                  ->Scan(Table::kBitMaps, "", "",
                         [&](absl::string_view key, absl::string_view value) {
                           EXPECT_EQ(value, "v");
                           seen.emplace_back(key);
                           return seen.size() < 2;
                         })
                  .ok());
  EXPECT_THAT(seen, ElementsAre("1", "2"));
}

TEST_P(StoreTest, ReadersAndWritersAtOnceSeeWholeWrites) {
  std::vector<std::thread> threads;
  for (int writer = 0; writer < 2; ++writer) {
    threads.emplace_back([this, writer] {
      for (int i = 0; i < 200; ++i) {
        const std::string value = std::to_string(1000 * writer + i);
        EXPECT_TRUE(store_
                        ->Write({{Table::kModels, "x", value},
                                 {Table::kModels, "y", value}},
                                Durability::kBuffered)
                        .ok());
      }
    });
  }
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([this] {
      for (int i = 0; i < 200; ++i) {
        std::vector<std::string> values;
        EXPECT_TRUE(store_
                        ->Scan(Table::kModels, "", "",
                               [&](absl::string_view, absl::string_view value) {
                                 values.emplace_back(value);
                                 return true;
                               })
                        .ok());
        if (values.size() == 2) {
          EXPECT_EQ(values[0], values[1]);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(AllStores, StoreTest,
                         ::testing::Values(Kind::kMemory, Kind::kRocksDb),
                         [](const auto& info) {
                           return info.param == Kind::kMemory ? "Memory"
                                                              : "RocksDb";
                         });

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

  // Writes into the database past the store.
  void Tamper(const std::string& key, const std::string& value) {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    families.emplace_back("default", rocksdb::ColumnFamilyOptions());
    for (const char* name : kTableNames) {
      families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    }
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), folder_.path(), families,
                                  &handles, &db)
                    .ok());
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), key, value).ok());
    for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle);
    delete db;
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
  Tamper("schema", "3");
  const absl::Status status = OpenStatus();
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), HasSubstr("schema version 3"));
}

TEST_F(RocksDbStoreTest, AnUnreadableSchemaIsCorruption) {
  Open().reset();
  Tamper("schema", "one");
  EXPECT_EQ(ErrorReason(OpenStatus()), "DATA_FOLDER_CORRUPT");
}

TEST_F(RocksDbStoreTest, AnUnknownColumnFamilyIsFromANewerVersion) {
  Open().reset();
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back("default", rocksdb::ColumnFamilyOptions());
  families.emplace_back("from_the_future", rocksdb::ColumnFamilyOptions());
  for (const char* name : kTableNames) {
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  }
  rocksdb::Options options;
  options.create_missing_column_families = true;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(
      rocksdb::DB::Open(options, folder_.path(), families, &handles, &db).ok());
  for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
  const absl::Status status = OpenStatus();
  EXPECT_EQ(ErrorReason(status), "DATA_FOLDER_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), HasSubstr("'from_the_future'"));
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
