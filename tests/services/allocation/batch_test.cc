// BatchGetBitMaps, the cache's counters and its bounds, and backups, through a
// real server over TCP.
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::MakeCalibration;

class BatchTest : public ServiceTest {
 protected:
  explicit BatchTest(AllocatorOptions options = {})
      : ServiceTest(std::move(options)) {}

  absl::StatusOr<v1::BatchGetBitMapsResponse> Batch(
      const std::vector<v1::GetBitMapRequest>& requests) {
    v1::BatchGetBitMapsRequest batch;
    batch.mutable_requests()->Add(requests.begin(), requests.end());
    return Call(*allocation_, &AllocationStub::BatchGetBitMaps, batch);
  }
};

TEST_F(BatchTest, EveryEntryIsAnsweredForItself) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  ASSERT_TRUE(Create("models/n", MakeCalibration({.seed = 2})).ok());
  std::vector<v1::GetBitMapRequest> requests(5, Request());
  requests[1].set_model("models/n");
  requests[2].set_model("models/missing");
  requests[3].mutable_budget()->set_effective_bits(0.01);
  requests[4].set_known_etag(GetBitMap(Request())->etag());
  const auto batch = Batch(requests);
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ(batch->results_size(), 5);
  for (int i : {0, 1, 4}) {
    EXPECT_EQ(batch->results(i).response().SerializeAsString(),
              GetBitMap(requests[i])->SerializeAsString());
  }
  EXPECT_TRUE(batch->results(4).response().unchanged());
  for (int i : {2, 3}) {
    const absl::Status error = FromProto(batch->results(i).error());
    const absl::Status alone = GetBitMap(requests[i]).status();
    EXPECT_EQ(error.code(), alone.code());
    EXPECT_EQ(error.message(), alone.message());
    EXPECT_EQ(ErrorReason(error), ErrorReason(alone));
    EXPECT_EQ(ErrorInfoMetadata(error), ErrorInfoMetadata(alone));
  }
  EXPECT_EQ(ErrorReason(FromProto(batch->results(3).error())),
            "BUDGET_BELOW_MINIMUM");
}

TEST_F(BatchTest, SizesOutOfBoundsAreRefused) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  ExpectError(Batch({}).status(), kInvalid, "BATCH_EMPTY", "requests");
  std::vector<v1::GetBitMapRequest> requests(1000, Request());
  EXPECT_EQ(Batch(requests)->results_size(), 1000);
  requests.push_back(Request());
  const absl::Status status = Batch(requests).status();
  ExpectError(status, kInvalid, "BATCH_TOO_LARGE", "requests");
  EXPECT_EQ(ErrorInfoMetadata(status).at("maximum"), "1000");
}

TEST_F(BatchTest, AnswersThatWouldNotFitAreNamedAndTheOthersGiven) {
  // 100,000 groups: a map is some 200 KB.
  ASSERT_TRUE(Create("models/m",
                     MakeCalibration({.layers = 1000,
                                      .kv_heads = 50,
                                      .quantizers = {testing::DefaultQuantizer(
                                          v1::Quantizer::KIVI)}}))
                  .ok());
  const auto batch = Batch(std::vector<v1::GetBitMapRequest>(400, Request(4)));
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_TRUE(batch->results(0).has_response());
  ASSERT_TRUE(batch->results(399).has_error());
  const absl::Status full = FromProto(batch->results(399).error());
  ExpectError(full, absl::StatusCode::kResourceExhausted,
              "BATCH_RESPONSE_FULL");
}

TEST_F(BatchTest, IdenticalMissesAreSolvedOnce) {
  ASSERT_TRUE(
      Create("models/m", MakeCalibration({.layers = 60, .kv_heads = 16})).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this] { EXPECT_TRUE(GetBitMap(Request()).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GetStatistics().solves(), 1);
  // Written differently, meaning the same.
  v1::GetBitMapRequest same = Request();
  same.mutable_policy()->set_strategy(v1::Policy::ALLOCATED);
  same.mutable_cache()->set_window(32);
  const int64_t hits = GetStatistics().disk().hits();
  EXPECT_EQ(GetBitMap(same)->etag(), GetBitMap(Request())->etag());
  EXPECT_EQ(GetStatistics().solves(), 1);
  EXPECT_EQ(GetStatistics().disk().hits(), hits + 1);
  // After a restart it comes from the store.
  Restart();
  EXPECT_TRUE(GetBitMap(Request()).ok());
  EXPECT_EQ(GetStatistics().solves(), 0);
  EXPECT_EQ(GetStatistics().disk().hits(), 1);
  EXPECT_EQ(GetStatistics().disk().entries(), 1);
}

class SmallCacheTest : public BatchTest {
 protected:
  SmallCacheTest()
      : BatchTest({.memory_bytes = 20 << 10, .store_bytes = 4 << 10}) {}
};

TEST_F(SmallCacheTest, MemoryAndStoreStayWithinTheirBounds) {
  ASSERT_TRUE(Create("models/m", MakeCalibration({.layers = 20})).ok());
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(GetBitMap(Request(2.5 + 0.05 * i)).ok());
    const v1::Statistics now = GetStatistics();
    ASSERT_LE(now.memory().bytes(), now.memory().capacity_bytes());
    ASSERT_LE(now.disk().bytes(), now.disk().capacity_bytes());
  }
  const v1::Statistics filled = GetStatistics();
  EXPECT_EQ(filled.solves(), 60);
  EXPECT_GT(filled.memory().evictions(), 0);
  EXPECT_GT(filled.disk().evictions(), 0);
  EXPECT_EQ(filled.disk().entries() + filled.disk().evictions(), 60);
  Restart();
  EXPECT_EQ(GetStatistics().disk().entries(), filled.disk().entries());
  EXPECT_EQ(GetStatistics().disk().bytes(), filled.disk().bytes());
  // The newest is there, the oldest has to be solved again.
  ASSERT_TRUE(GetBitMap(Request(2.5 + 0.05 * 59)).ok());
  EXPECT_EQ(GetStatistics().solves(), 0);
  ASSERT_TRUE(GetBitMap(Request(2.5)).ok());
  EXPECT_EQ(GetStatistics().solves(), 1);
}

class BackupTest : public ServiceTest {
 protected:
  absl::StatusOr<v1::Backup> Backup(const std::string& name) {
    v1::CreateBackupRequest request;
    request.set_backup(name);
    return Call(*admin_, &AdminStub::CreateBackup, request);
  }

  testing::TempDir backups_;
};

TEST_F(BackupTest, ABackupHasWhatWasAcknowledgedBeforeIt) {
  ExpectError(Backup("monday").status(), kPrecondition, "BACKUPS_DISABLED");
  options_.backup_dir = backups_.File("all");
  Restart();
  const auto before = Create("models/m", MakeCalibration());
  const auto map = GetBitMap(Request());
  const auto backup = Backup("monday");
  ASSERT_TRUE(backup.ok()) << backup.status();
  EXPECT_EQ(backup->folder(), backups_.File("all/monday"));
  EXPECT_GT(backup->bytes(), 0);
  const auto after = Create("models/m", MakeCalibration({.seed = 2}));
  ExpectError(Backup("monday").status(), absl::StatusCode::kAlreadyExists,
              "BACKUP_EXISTS");
  for (const char* bad : {"", "a/b", "..", "/etc"}) {
    ExpectError(Backup(bad).status(), kInvalid, "INVALID_NAME", "backup");
  }
  // The service over the restored folder.
  const std::string restored = backups_.File("restored");
  ASSERT_TRUE(RocksDbStore::Restore(backup->folder(), restored).ok());
  server_.reset();
  allocator_.reset();
  std::filesystem::remove_all(folder_.path());
  std::filesystem::rename(restored, folder_.path());
  Start();
  EXPECT_EQ(Get(before->name())->SerializeAsString(),
            before->SerializeAsString());
  EXPECT_EQ(GetBitMap(Request())->SerializeAsString(),
            map->SerializeAsString());
  EXPECT_EQ(GetStatistics().solves(), 0);
  ExpectError(Get(after->name()).status(), kNotFound, "CALIBRATION_NOT_FOUND");
}

}  // namespace
}  // namespace ratequant::allocation
