#include "services/allocation/bit_map_table.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/store/memory_store.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/canonical.h"
#include "services/common/status.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::TempDir;
using ::testing::ElementsAre;

const ChildName kCalibration = {"m", "c"};

// Over both stores.
class BitMapTableTest : public ::testing::TestWithParam<bool> {
 protected:
  BitMapTableTest() {
    if (GetParam()) {
      auto store = RocksDbStore::Open(folder_.path());
      EXPECT_TRUE(store.ok()) << store.status();
      store_ = *std::move(store);
    } else {
      store_ = std::make_unique<MemoryStore>();
    }
    Open(10'000);
  }

  // As a new process would.
  void Open(uint64_t capacity) {
    auto table = BitMapTable::Open(store_.get(), capacity);
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
  }

  void Commit(const absl::Status& status, const BitMapTable::Change& change) {
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(store_->Write(change.mutations, Durability::kBuffered).ok());
    table_->Apply(change);
    const v1::CacheStatistics now = table_->statistics();
    EXPECT_LE(now.bytes(), now.capacity_bytes());
  }

  static ChildName NameOf(int i) {
    return {"m", Sha256Hex(absl::StrCat("map ", i))};
  }

  // Map `i`, some 1,200 bytes, under query "q{i}".
  void Put(int i, size_t bytes = 1100) {
    v1::BitMap map;
    map.set_name(BitMapName("m", NameOf(i).id));
    map.set_calibration(std::string(bytes, 'c'));
    BitMapTable::Change change;
    const absl::Status status =
        table_->Put(kCalibration, absl::StrCat("q", i), map, &change);
    Commit(status, change);
  }
  void Keep(int i) {
    BitMapTable::Change change;
    const absl::Status status = table_->Keep(NameOf(i), &change);
    Commit(status, change);
  }
  void Release(int i) {
    BitMapTable::Change change;
    const absl::Status status = table_->Release(NameOf(i), &change);
    Commit(status, change);
  }

  // The maps that are there, by query and by name alike.
  std::vector<int> Stored() {
    std::vector<int> stored;
    for (int i = 0; i < 100; ++i) {
      const auto got = table_->Get(kCalibration, absl::StrCat("q", i));
      const auto found = table_->Find(NameOf(i));
      EXPECT_TRUE(got.ok() && found.ok());
      EXPECT_EQ(got->has_value(), found->has_value()) << i;
      if (got->has_value()) stored.push_back(i);
    }
    return stored;
  }

  TempDir folder_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BitMapTable> table_;
};

TEST_P(BitMapTableTest, TheOldestGoFirstAndARestartCountsTheSame) {
  for (int i = 0; i < 12; ++i) Put(i);
  EXPECT_THAT(Stored(), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_EQ(table_->statistics().evictions(), 4);
  const int64_t bytes = table_->statistics().bytes();
  Open(10'000);
  EXPECT_EQ(table_->statistics().bytes(), bytes);
  EXPECT_EQ(table_->statistics().entries(), 8);
  Put(12);
  EXPECT_THAT(Stored(), ElementsAre(5, 6, 7, 8, 9, 10, 11, 12));
  // With less room than there is, a put makes it.
  Open(3'000);
  Put(13);
  EXPECT_THAT(Stored(), ElementsAre(12, 13));
}

TEST_P(BitMapTableTest, KeptMapsStayUntilTheyAreReleased) {
  Put(0);
  Put(1);
  Keep(0);
  Keep(0);
  EXPECT_EQ(table_->statistics().entries(), 1);
  for (int i = 2; i < 20; ++i) Put(i);
  EXPECT_THAT(Stored(), ElementsAre(0, 12, 13, 14, 15, 16, 17, 18, 19));
  Open(10'000);
  EXPECT_EQ(table_->statistics().entries(), 8);
  // Stored again, it still is kept.
  Put(0);
  for (int i = 20; i < 40; ++i) Put(i);
  EXPECT_EQ(Stored().front(), 0);
  Release(0);
  EXPECT_EQ(Stored().front(), 0);
  for (int i = 40; i < 50; ++i) Put(i);
  EXPECT_NE(Stored().front(), 0);
}

TEST_P(BitMapTableTest, PuttingAgainReplacesAndCountsOnce) {
  Put(0);
  const int64_t bytes = table_->statistics().bytes();
  Put(0);
  EXPECT_EQ(table_->statistics().bytes(), bytes);
  Put(0, 2000);
  EXPECT_EQ(table_->statistics().bytes(), bytes + 900);
  EXPECT_EQ(table_->statistics().entries(), 1);
  // Among others, when there is no room to spare.
  for (int i = 1; i < 9; ++i) Put(i);
  Put(2, 5000);
  EXPECT_THAT(Stored(), ::testing::Contains(2));
}

TEST_P(BitMapTableTest, AMapLargerThanAllOfItIsNotStored) {
  Put(0);
  Put(1, 20'000);
  EXPECT_THAT(Stored(), ElementsAre(0));
}

TEST_P(BitMapTableTest, ACalibrationTakesAllItsMapsAndSaysWhichWereKept) {
  for (int i = 0; i < 3; ++i) Put(i);
  Keep(1);
  BitMapTable::Change other;
  v1::BitMap map;
  map.set_name(BitMapName("m", NameOf(150).id));
  const absl::Status put = table_->Put({"m", "c2"}, "q50", map, &other);
  Commit(put, other);
  BitMapTable::Change change;
  std::vector<std::string> kept;
  const absl::Status removed = table_->RemoveAll(kCalibration, &change, &kept);
  Commit(removed, change);
  EXPECT_THAT(kept, ElementsAre(NameOf(1).id));
  EXPECT_THAT(Stored(), ::testing::IsEmpty());
  EXPECT_TRUE(table_->Get({"m", "c2"}, "q50")->has_value());
  EXPECT_EQ(table_->statistics().entries(), 1);
}

TEST_P(BitMapTableTest, DamagedRowsAreNamed) {
  Put(0);
  ASSERT_TRUE(store_
                  ->Write({{Table::kBitMaps, "m/c/q0", "\xff\xff"}},
                          Durability::kBuffered)
                  .ok());
  const absl::Status status = table_->Get(kCalibration, "q0").status();
  EXPECT_EQ(ErrorReason(status), "STORE_CORRUPT");
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("bit_maps m/c/q0"));
}

INSTANTIATE_TEST_SUITE_P(AllStores, BitMapTableTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "RocksDb" : "Memory";
                         });

}  // namespace
}  // namespace ratequant::allocation
