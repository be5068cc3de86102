#include "services/calibration/progress.h"

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/calibration/progress_stream.h"

namespace ratequant::calibration {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using P = v1::CalibrateProgress;

TEST(Progress, EstimatesTheTimeLeftFromTheRateOfTheCapture) {
  absl::Time now = absl::UnixEpoch();
  Progress progress([&now]() { return now; });
  now += absl::Seconds(100);  // loading says nothing about the rate
  progress.SetTotal(1000);
  progress.SetPhase(P::CAPTURING);
  EXPECT_FALSE(progress.Snapshot().has_remaining());
  now += absl::Seconds(10);
  progress.SetDone(250);
  progress.AddSweepTime(absl::Milliseconds(1500));
  const P snapshot = progress.Snapshot();
  EXPECT_EQ(snapshot.elapsed().seconds(), 110);
  EXPECT_EQ(snapshot.remaining().seconds(), 30);
  EXPECT_EQ(snapshot.sweep_time().seconds(), 1);
  EXPECT_EQ(snapshot.sweep_time().nanos(), 500'000'000);
  progress.SetPhase(P::FITTING);
  EXPECT_FALSE(progress.Snapshot().has_remaining());
}

TEST(Progress, TellsOfEveryPhase) {
  int changes = 0;
  Progress progress(absl::Now, [&changes]() { ++changes; });
  progress.SetPhase(P::CAPTURING);
  progress.SetDone(1);
  progress.SetPhase(P::FITTING);
  EXPECT_EQ(changes, 2);
}

// Stands in for gRPC: a write is over when the test says so.
class ProgressStreamTest : public testing::Test {
 protected:
  ProgressStreamTest()
      : stream_(
            [this](const P* p) {
              EXPECT_FALSE(writing_);
              EXPECT_THAT(statuses_, IsEmpty());
              writing_ = true;
              written_.push_back(p->tokens_done());
            },
            [this](const grpc::Status& status) {
              EXPECT_FALSE(writing_);
              statuses_.push_back(status.error_code());
            }) {}

  void Offer(P::Phase phase, int tokens) { stream_.Offer(Make(phase, tokens)); }

  static P Make(P::Phase phase, int tokens) {
    P progress;
    progress.set_phase(phase);
    progress.set_tokens_done(tokens);
    return progress;
  }

  void WriteDone(bool ok = true) {
    writing_ = false;
    stream_.OnWriteDone(ok);
  }

  bool writing_ = false;
  std::vector<int> written_;
  std::vector<grpc::StatusCode> statuses_;
  ProgressStream stream_;
};

TEST_F(ProgressStreamTest, ASlowClientGetsTheNewestOfEachPhase) {
  Offer(P::CAPTURING, 1);
  for (int tokens = 2; tokens < 100; ++tokens) Offer(P::CAPTURING, tokens);
  Offer(P::FITTING, 100);
  Offer(P::PUBLISHING, 101);
  Offer(P::PUBLISHING, 102);
  EXPECT_THAT(written_, ElementsAre(1));
  for (int i = 0; i < 4; ++i) WriteDone();
  EXPECT_THAT(written_, ElementsAre(1, 99, 100, 102));
}

TEST_F(ProgressStreamTest, EndsAfterTheLastMessage) {
  Offer(P::PUBLISHING, 1);
  stream_.End(Make(P::DONE, 2), grpc::Status::OK);
  Offer(P::PUBLISHING, 3);
  EXPECT_THAT(statuses_, IsEmpty());
  WriteDone();
  EXPECT_THAT(statuses_, IsEmpty());
  WriteDone();
  EXPECT_THAT(written_, ElementsAre(1, 2));
  EXPECT_THAT(statuses_, ElementsAre(grpc::StatusCode::OK));
}

TEST_F(ProgressStreamTest, AnErrorOvertakesWhatWaits) {
  Offer(P::CAPTURING, 1);
  Offer(P::CAPTURING, 2);
  stream_.End(absl::nullopt, grpc::Status(grpc::StatusCode::ABORTED, ""));
  stream_.End(absl::nullopt, grpc::Status(grpc::StatusCode::INTERNAL, ""));
  WriteDone();
  EXPECT_THAT(written_, ElementsAre(1));
  EXPECT_THAT(statuses_, ElementsAre(grpc::StatusCode::ABORTED));
}

TEST_F(ProgressStreamTest, ABrokenCallEndsWithoutFurtherWrites) {
  Offer(P::CAPTURING, 1);
  stream_.End(Make(P::DONE, 2), grpc::Status::OK);
  WriteDone(false);
  EXPECT_THAT(written_, ElementsAre(1));
  EXPECT_THAT(statuses_, ElementsAre(grpc::StatusCode::OK));
}

}  // namespace
}  // namespace ratequant::calibration
