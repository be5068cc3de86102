#include "services/allocation/store/store.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/store/memory_store.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/status.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::TempDir;
using ::testing::ElementsAre;
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

TEST_P(StoreTest, ABackupGoesToANewFolderOnDiskOrIsRefused) {
  Put(Table::kModels, "m", "1");
  TempDir backups;
  const absl::Status status = store_->Backup(backups.File("one"));
  if (GetParam() == Kind::kMemory) {
    EXPECT_EQ(ErrorReason(status), "BACKUPS_DISABLED");
    return;
  }
  ASSERT_TRUE(status.ok()) << status;
  Put(Table::kModels, "m", "2");
  EXPECT_EQ(ErrorReason(store_->Backup(backups.File("one"))), "BACKUP_EXISTS");
  const auto copy = RocksDbStore::OpenReadOnly(backups.File("one"));
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(**(*copy)->Get(Table::kModels, "m"), "1");
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

}  // namespace
}  // namespace ratequant::allocation
