// Several clients at a real worker: who waits, who is turned away, and what
// happens to them when a call ends or the worker does.
#include <gtest/gtest.h>

#include <memory>

#include "google/rpc/error_details.pb.h"
#include "services/common/status.h"
#include "tests/services/calibration/worker_fixture.h"

namespace ratequant::calibration {
namespace {

using Progress = v1::CalibrateProgress;

// A call that may wait.
struct Call {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<Progress>> stream;
};

class WorkerQueueTest : public WorkerFixture {
 protected:
  std::unique_ptr<Call> Begin() {
    auto call = std::make_unique<Call>();
    call->stream = stub_->CalibrateModel(&call->context, Request());
    return call;
  }

  // Reads until the call is at `position` of the queue.
  static void WaitForPosition(Call& call, uint32_t position) {
    Progress progress;
    while (call.stream->Read(&progress)) {
      ASSERT_EQ(progress.phase(), Progress::QUEUED);
      if (progress.queue_position() == position) return;
    }
    FAIL() << "the call ended: " << StatusOf(call.stream->Finish());
  }
};

TEST_F(WorkerQueueTest, CallsWaitForTheirTurn) {
  options_.queue.max_waiting = 2;
  Start("hang@middle");
  const auto first = Begin();
  ASSERT_GT(EnginePid(), 0);
  const auto second = Begin();
  WaitForPosition(*second, 1);
  const auto third = Begin();
  WaitForPosition(*third, 2);

  const absl::Status busy = CalibrateModel().status;
  EXPECT_TRUE(absl::IsResourceExhausted(busy)) << busy;
  EXPECT_EQ(ErrorReason(busy), "WORKER_BUSY");
  EXPECT_TRUE(
      busy.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());

  // Who goes away makes room at once, without having run.
  second->context.TryCancel();
  EXPECT_TRUE(absl::IsCancelled(Finish(*second->stream).status));
  WaitForPosition(*third, 1);
  // The running one goes away: the third runs.
  first->context.TryCancel();
  EXPECT_TRUE(absl::IsCancelled(Finish(*first->stream).status));
  Progress progress;
  while (third->stream->Read(&progress) &&
         progress.phase() != Progress::CAPTURING) {
  }
  EXPECT_EQ(progress.phase(), Progress::CAPTURING);
  third->context.TryCancel();
  EXPECT_TRUE(absl::IsCancelled(Finish(*third->stream).status));
}

TEST_F(WorkerQueueTest, ADeadlineCountsWhileACallWaits) {
  Start("hang@middle");
  const auto first = Begin();
  ASSERT_GT(EnginePid(), 0);
  Call second;
  second.context.set_deadline(std::chrono::system_clock::now() +
                              std::chrono::milliseconds(300));
  second.stream = stub_->CalibrateModel(&second.context, Request());
  EXPECT_TRUE(absl::IsDeadlineExceeded(Finish(*second.stream).status));
  first->context.TryCancel();
  EXPECT_TRUE(absl::IsCancelled(Finish(*first->stream).status));
}

TEST_F(WorkerQueueTest, CalibrationsOfOneModelAtOnceAgree) {
  options_.queue.max_concurrent = 2;
  Start();
  const auto first = Begin(), second = Begin();
  const CallResult a = Finish(*first->stream), b = Finish(*second->stream);
  ASSERT_TRUE(a.status.ok()) << a.status;
  ASSERT_TRUE(b.status.ok()) << b.status;
  EXPECT_EQ(a.done().calibration(), b.done().calibration());
  EXPECT_TRUE(registry_.Has(a.done().calibration()));
}

TEST_F(WorkerQueueTest, AFailingCalibrationHarmsNoOther) {
  options_.queue.max_concurrent = 2;
  Start("slow");
  const auto good = Begin();
  EXPECT_FALSE(CalibrateStream({}).status.ok());
  const CallResult result = Finish(*good->stream);
  EXPECT_TRUE(result.status.ok()) << result.status;
}

TEST_F(WorkerQueueTest, ShuttingDownLetsTheRunningOneFinish) {
  options_.queue.max_waiting = 2;
  Start();
  const auto first = Begin();
  Progress progress;
  while (first->stream->Read(&progress) &&
         progress.phase() == Progress::QUEUED) {
  }
  worker_->Shutdown(absl::Seconds(60));
  const CallResult result = Finish(*first->stream);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(registry_.Has(result.done().calibration()));
}

TEST_F(WorkerQueueTest, ShuttingDownSendsThoseThatWaitAway) {
  Start("hang@middle");
  const auto first = Begin();
  ASSERT_GT(EnginePid(), 0);
  const auto second = Begin();
  WaitForPosition(*second, 1);
  worker_->Shutdown(absl::Milliseconds(100));
  for (const auto* call : {&first, &second}) {
    const absl::Status status = Finish(*(*call)->stream).status;
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_EQ(ErrorReason(status), "WORKER_SHUTTING_DOWN");
  }
}

}  // namespace
}  // namespace ratequant::calibration
