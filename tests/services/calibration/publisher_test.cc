#include "services/calibration/publisher.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/calibration/calibration_builder.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "tests/services/calibration/file_size_limit.h"
#include "tests/services/calibration/test_capture.h"
#include "tests/services/calibration/test_registry.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A named calibration; different `device`s give different ones.
v1::Calibration MakeCalibration(const std::string& device = "cpu") {
  v1::Calibration calibration;
  *calibration.mutable_geometry() = TestCapture::Geometry();
  calibration.mutable_capture()->set_device(device);
  calibration.set_name(
      CalibrationName("m", *CalibrationDigest(calibration, "m")));
  return calibration;
}

std::string FileOf(const v1::Calibration& calibration) {
  return "m--" + calibration.name().substr(calibration.name().rfind('/') + 1) +
         ".calibration";
}

class SpoolTest : public testing::Test {
 protected:
  std::unique_ptr<Spool> Open() {
    auto spool = Spool::Open(dir_ / "spool");
    EXPECT_TRUE(spool.ok()) << spool.status();
    return spool.ok() ? *std::move(spool) : nullptr;
  }

  TempDir dir_;
};

TEST_F(SpoolTest, KeepsCalibrationsForTheNextProcess) {
  const v1::Calibration calibration = MakeCalibration();
  ASSERT_TRUE(Open()->Put(calibration).ok());
  auto spool = Open();
  auto files = spool->List();
  ASSERT_TRUE(files.ok());
  ASSERT_THAT(*files, ElementsAre(FileOf(calibration)));
  auto read = spool->Read((*files)[0]);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), calibration.SerializeAsString());
  ASSERT_TRUE(spool->Remove((*files)[0]).ok());
  EXPECT_THAT(*spool->List(), IsEmpty());
}

TEST_F(SpoolTest, BelongsToOneWorker) {
  auto spool = Open();
  EXPECT_EQ(ErrorReason(Spool::Open(dir_ / "spool").status()), "SPOOL_IN_USE");
  spool.reset();
  EXPECT_TRUE(Spool::Open(dir_ / "spool").ok());
}

TEST_F(SpoolTest, SaysThatAFolderCannotBe) {
  std::ofstream(dir_ / "file") << "x";
  const absl::Status status = Spool::Open(dir_ / "file/spool").status();
  EXPECT_EQ(ErrorReason(status), "SPOOL_UNUSABLE") << status;
  EXPECT_EQ(ErrorReason(Spool::Open("").status()), "SPOOL_UNUSABLE");
}

TEST_F(SpoolTest, RemovesWhatAnEarlierProcessLeftHalfWritten) {
  Open();
  std::ofstream(dir_ / "spool/m--x.calibration.tmp") << "half";
  auto spool = Open();
  EXPECT_FALSE(fs::exists(dir_ / "spool/m--x.calibration.tmp"));
  EXPECT_THAT(*spool->List(), IsEmpty());
}

TEST_F(SpoolTest, NoticesDamage) {
  const v1::Calibration calibration = MakeCalibration();
  auto spool = Open();
  ASSERT_TRUE(spool->Put(calibration).ok());
  v1::Calibration changed = calibration;
  changed.mutable_capture()->set_device("gpu");
  std::ofstream(dir_ / "spool/" + FileOf(calibration), std::ios::trunc)
      << changed.SerializeAsString();
  EXPECT_TRUE(absl::IsDataLoss(spool->Read(FileOf(calibration)).status()));
}

TEST_F(SpoolTest, LeavesNothingBehindWhenTheDiskIsFull) {
  auto spool = Open();
  absl::Status put;
  {
    FileSizeLimit limit(16);
    put = spool->Put(MakeCalibration());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(put)) << put;
  EXPECT_EQ(ErrorReason(put), "SPOOL_UNWRITABLE");
  EXPECT_THAT(std::string(put.message()), HasSubstr("File too large"));
  EXPECT_THAT(*spool->List(), IsEmpty());
  for (const auto& entry : fs::directory_iterator(dir_ / "spool")) {
    EXPECT_EQ(entry.path().filename(), ".lock");
  }
}

class PublisherTest : public testing::Test {
 protected:
  PublisherTest() : cancel_(*CancelToken::Create()) {
    options_.first_backoff = absl::Milliseconds(200);
    options_.first_spool_backoff = absl::Seconds(1);
    options_.last_spool_backoff = absl::Seconds(4);
  }

  // The background thread's sleeps are recorded and shortened.
  void Start() {
    auto spool = Spool::Open(dir_ / "spool");
    ASSERT_TRUE(spool.ok()) << spool.status();
    RegistryTarget target;
    target.address = registry_.address();
    auto registry = MakeGrpcRegistryClient(target, absl::Seconds(5));
    ASSERT_TRUE(registry.ok()) << registry.status();
    auto publisher = Publisher::Start(
        *std::move(registry), *std::move(spool), options_,
        [this](absl::Duration time, const CancelToken& cancel) {
          const bool foreground = &cancel == cancel_.get();
          {
            std::lock_guard<std::mutex> lock(mutex_);
            (foreground ? sleeps_ : background_sleeps_).push_back(time);
          }
          if (on_sleep_ && foreground) on_sleep_();
          SleepUnlessCancelled(absl::Milliseconds(foreground ? 1 : 20), cancel);
        });
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
  }

  std::vector<absl::Duration> BackgroundSleeps() {
    std::lock_guard<std::mutex> lock(mutex_);
    return background_sleeps_;
  }

  // Waits until the background thread has slept `count` times.
  void WaitForSleeps(size_t count) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (BackgroundSleeps().size() < count && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    ASSERT_GE(BackgroundSleeps().size(), count);
  }

  std::vector<std::string> SpoolFiles() {
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(dir_ / "spool")) {
      if (entry.path().extension() == ".calibration") {
        files.push_back(entry.path().filename());
      }
    }
    return files;
  }

  TempDir dir_;
  TestRegistry registry_;
  PublisherOptions options_;
  std::shared_ptr<CancelToken> cancel_;
  std::mutex mutex_;
  std::vector<absl::Duration> sleeps_;
  std::vector<absl::Duration> background_sleeps_;
  std::function<void()> on_sleep_;
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(PublisherTest, PublishesAtOnce) {
  registry_.Up();
  Start();
  const v1::Calibration calibration = MakeCalibration();
  auto published = publisher_->Publish(calibration, *cancel_);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_TRUE(*published);
  EXPECT_TRUE(registry_.Has(calibration.name()));
  EXPECT_THAT(SpoolFiles(), IsEmpty());
  EXPECT_THAT(sleeps_, IsEmpty());
}

TEST_F(PublisherTest, TriesAgainWithBackoff) {
  registry_.Up();
  registry_.Answer(absl::UnavailableError("soon"));
  on_sleep_ = [this]() {
    if (sleeps_.size() == 2) registry_.Answer(absl::OkStatus());
  };
  Start();
  auto published = publisher_->Publish(MakeCalibration(), *cancel_);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_TRUE(*published);
  EXPECT_EQ(registry_.calls(), 3);
  EXPECT_THAT(sleeps_,
              ElementsAre(absl::Milliseconds(200), absl::Milliseconds(400)));
}

TEST_F(PublisherTest, SpoolsAndPublishesLater) {
  Start();
  const v1::Calibration calibration = MakeCalibration();
  auto published = publisher_->Publish(calibration, *cancel_);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_FALSE(*published);
  EXPECT_THAT(SpoolFiles(), ElementsAre(FileOf(calibration)));
  registry_.Up();
  EXPECT_TRUE(registry_.WaitFor(calibration.name(), absl::Seconds(30)));
  EXPECT_EQ(registry_.Get(calibration.name()).SerializeAsString(),
            calibration.SerializeAsString());
  // Removed after it was stored, before the next sleep.
  WaitForSleeps(BackgroundSleeps().size() + 1);
  EXPECT_THAT(SpoolFiles(), IsEmpty());
}

TEST_F(PublisherTest, PublishesWhatAnEarlierProcessLeft) {
  Start();
  const v1::Calibration first = MakeCalibration("a");
  const v1::Calibration second = MakeCalibration("b");
  ASSERT_FALSE(*publisher_->Publish(first, *cancel_));
  ASSERT_FALSE(*publisher_->Publish(second, *cancel_));
  publisher_.reset();
  registry_.Up();
  Start();
  EXPECT_TRUE(registry_.WaitFor(first.name(), absl::Seconds(30)));
  EXPECT_TRUE(registry_.WaitFor(second.name(), absl::Seconds(30)));
}

TEST_F(PublisherTest, WaitsLongerAndLongerInTheBackground) {
  Start();
  ASSERT_FALSE(*publisher_->Publish(MakeCalibration(), *cancel_));
  const size_t before = BackgroundSleeps().size();
  WaitForSleeps(before + 5);
  const auto sleeps = BackgroundSleeps();
  EXPECT_EQ(sleeps.back(), absl::Seconds(4));
  EXPECT_THAT(sleeps, testing::Contains(absl::Seconds(2)));
}

TEST_F(PublisherTest, SpoolsWhenTheRegistryIsFullWithoutTryingAgain) {
  registry_.Up();
  registry_.Answer(MakeError(absl::StatusCode::kResourceExhausted, "STORE_FULL",
                             "no space"));
  Start();
  auto published = publisher_->Publish(MakeCalibration(), *cancel_);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_FALSE(*published);
  EXPECT_THAT(sleeps_, IsEmpty());
}

TEST_F(PublisherTest, ARefusalIsAnErrorAndIsNotSpooled) {
  registry_.Up();
  registry_.Answer(FieldError("INVALID_CALIBRATION", "tables", "is empty"));
  Start();
  const auto published = publisher_->Publish(MakeCalibration(), *cancel_);
  EXPECT_TRUE(absl::IsInternal(published.status()));
  EXPECT_EQ(ErrorReason(published.status()), "PUBLISH_REFUSED");
  EXPECT_EQ(ErrorInfoMetadata(published.status())["allocator_reason"],
            "INVALID_CALIBRATION");
  EXPECT_THAT(SpoolFiles(), IsEmpty());
}

TEST_F(PublisherTest, SetsASpooledCalibrationAsideWhenItIsRefused) {
  registry_.Up();
  registry_.Answer(MakeError(absl::StatusCode::kResourceExhausted, "STORE_FULL",
                             "no space"));
  Start();
  const v1::Calibration refused = MakeCalibration("a");
  ASSERT_FALSE(*publisher_->Publish(refused, *cancel_));
  registry_.Answer(FieldError("INVALID_CALIBRATION", "tables", "is empty"));
  WaitForSleeps(BackgroundSleeps().size() + 2);
  EXPECT_THAT(SpoolFiles(), IsEmpty());
  EXPECT_TRUE(fs::exists(dir_ / "spool/refused/" + FileOf(refused)));
}

TEST_F(PublisherTest, ADamagedFileDoesNotHoldUpTheOthers) {
  fs::create_directories(dir_ / "spool");
  // Sorted before every other.
  std::ofstream(dir_ / "spool/0--x.calibration") << "damaged";
  const v1::Calibration calibration = MakeCalibration();
  Start();
  ASSERT_FALSE(*publisher_->Publish(calibration, *cancel_));
  registry_.Up();
  EXPECT_TRUE(registry_.WaitFor(calibration.name(), absl::Seconds(30)));
  EXPECT_TRUE(fs::exists(dir_ / "spool/refused/0--x.calibration"));
}

TEST_F(PublisherTest, SaysThatNeitherRegistryNorDiskTakesIt) {
  Start();
  absl::StatusOr<bool> published;
  {
    FileSizeLimit limit(16);
    published = publisher_->Publish(MakeCalibration(), *cancel_);
  }
  EXPECT_EQ(ErrorReason(published.status()), "SPOOL_UNWRITABLE");
}

TEST_F(PublisherTest, CancellingEndsACallThatHangs) {
  registry_.Up();
  registry_.Hang();
  Start();
  std::thread canceller([this]() {
    while (registry_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    cancel_->Cancel(absl::CancelledError("enough"));
  });
  const auto published = publisher_->Publish(MakeCalibration(), *cancel_);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(published.status())) << published.status();
  EXPECT_THAT(SpoolFiles(), IsEmpty());
}

TEST_F(PublisherTest, ShuttingDownSpoolsWhatIsMeasured) {
  registry_.Up();
  registry_.Hang();
  Start();
  std::thread canceller([this]() {
    while (registry_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    cancel_->Cancel(absl::UnavailableError("shutting down"));
  });
  const auto published = publisher_->Publish(MakeCalibration(), *cancel_);
  canceller.join();
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_FALSE(*published);
  EXPECT_THAT(SpoolFiles(), SizeIs(1));
}

TEST_F(PublisherTest, WithoutARegistryEverythingStaysInTheSpool) {
  auto spool = Spool::Open(dir_ / "spool");
  auto publisher = Publisher::Start(nullptr, *std::move(spool), options_);
  ASSERT_TRUE(publisher.ok());
  EXPECT_FALSE(*(*publisher)->Publish(MakeCalibration(), *cancel_));
  EXPECT_THAT(SpoolFiles(), SizeIs(1));
}

}  // namespace
}  // namespace ratequant::calibration
