// CalibrateStream against a real worker.

#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "services/calibration/engine_process.h"
#include "services/common/status.h"
#include "tests/services/calibration/file_size_limit.h"
#include "tests/services/calibration/process_state.h"
#include "tests/services/calibration/worker_fixture.h"

namespace ratequant::calibration {
namespace {

using ::testing::HasSubstr;
using Progress = v1::CalibrateProgress;

class WorkerStreamTest : public WorkerFixture {
 protected:
  std::vector<v1::CalibrateChunk> Chunks(size_t piece = 5000) {
    return capture_.Chunks("models/tiny", piece);
  }
};

TEST_F(WorkerStreamTest, GivesTheSameCalibrationAsTheEngine) {
  Start();
  const CallResult engine = CalibrateModel();
  const CallResult stream = CalibrateStream(Chunks());
  ASSERT_TRUE(engine.status.ok()) << engine.status;
  ASSERT_TRUE(stream.status.ok()) << stream.status;
  EXPECT_EQ(stream.done().phase(), Progress::DONE);
  EXPECT_TRUE(stream.done().published());
  EXPECT_EQ(stream.done().calibration(), engine.done().calibration());
}

TEST_F(WorkerStreamTest, TakesLargeChunks) {
  Start();
  EXPECT_TRUE(CalibrateStream(Chunks(4 << 20)).status.ok());
}

TEST_F(WorkerStreamTest, AnswersAFaultAtOnceAlthoughTheClientGoesOn) {
  Start();
  std::vector<v1::CalibrateChunk> chunks = Chunks(1000);
  std::swap(chunks[2], chunks[3]);
  const CallResult result = CalibrateStream(chunks);
  EXPECT_TRUE(absl::IsInvalidArgument(result.status)) << result.status;
  EXPECT_EQ(ErrorReason(result.status), "CHUNK_OUT_OF_ORDER");
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("expected offset 1000, got 2000"));
  // And the worker goes on.
  EXPECT_TRUE(CalibrateStream(Chunks()).status.ok());
}

TEST_F(WorkerStreamTest, AnswersEveryKindOfFault) {
  Start();
  std::vector<v1::CalibrateChunk> chunks = Chunks();
  chunks.resize(chunks.size() - 1);
  EXPECT_EQ(ErrorReason(CalibrateStream(chunks).status), "STREAM_INCOMPLETE");
  EXPECT_EQ(ErrorReason(CalibrateStream({}).status), "HEADER_MISSING");
  chunks = Chunks();
  chunks[1].mutable_tensor()->set_layer(99);
  EXPECT_EQ(ErrorReason(CalibrateStream(chunks).status), "WRONG_SHAPE");
  chunks = Chunks();
  chunks[0].mutable_header()->mutable_geometry()->set_head_dim(20);
  EXPECT_EQ(ErrorReason(CalibrateStream(chunks).status), "UNSUPPORTED_SHAPE");
  capture_.Tensor(1, 2, 1)[5] = std::numeric_limits<float>::infinity();
  const CallResult infinite = CalibrateStream(Chunks());
  EXPECT_TRUE(absl::IsDataLoss(infinite.status));
  EXPECT_EQ(ErrorReason(infinite.status), "NON_FINITE_CAPTURE");
}

TEST_F(WorkerStreamTest, GivesUpOnASilentClient) {
  options_.engine.timeout = absl::Seconds(1);
  Start();
  grpc::ClientContext context;
  auto stream = stub_->CalibrateStream(&context);
  const auto chunks = Chunks();
  for (int i = 0; i < 3; ++i) stream->Write(chunks[i]);
  const CallResult result = Finish(*stream);
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status)) << result.status;
  EXPECT_EQ(ErrorReason(result.status), "ENGINE_HUNG");
}

TEST_F(WorkerStreamTest, CancellingFreesTheWorker) {
  Start();
  grpc::ClientContext context;
  auto stream = stub_->CalibrateStream(&context);
  const auto chunks = Chunks();
  for (int i = 0; i < 3; ++i) stream->Write(chunks[i]);
  context.TryCancel();
  EXPECT_TRUE(absl::IsCancelled(Finish(*stream).status));
  CallResult next;
  do {
    next = CalibrateStream(chunks);
  } while (ErrorReason(next.status) == "WORKER_BUSY");
  EXPECT_TRUE(next.status.ok()) << next.status;
}

TEST_F(WorkerStreamTest, SaysThatTheSpoolIsFullWhenTheAllocatorIsDown) {
  registry_.Down();
  Start();
  const auto chunks = Chunks();
  CallResult result;
  {
    FileSizeLimit limit(16);
    result = CalibrateStream(chunks);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(result.status)) << result.status;
  EXPECT_EQ(ErrorReason(result.status), "SPOOL_UNWRITABLE");
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("File too large"));
  // With room again it is kept.
  result = CalibrateStream(chunks);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.done().published());
}

TEST_F(WorkerStreamTest, AClientThatVanishesFreesTheWorker) {
  options_.queue.max_waiting = 0;
  Start();
  const auto folder =
      std::filesystem::read_symlink("/proc/self/exe").parent_path();
  auto client = EngineProcess::Start(
      {(folder / "calibration_holding_client").string(), worker_->address()});
  ASSERT_TRUE(client.ok()) << client.status();
  auto never = *CancelToken::Create();
  absl::StatusOr<std::string> line;
  do {
    line = (*client)->ReadLine(absl::Seconds(30), *never);
    ASSERT_TRUE(line.ok()) << line.status();
  } while (*line != "holding");
  const auto chunks = Chunks();
  ASSERT_EQ(ErrorReason(CalibrateStream(chunks).status), "WORKER_BUSY");
  (*client)->Kill();
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  absl::Status status;
  do {
    status = CalibrateStream(chunks).status;
  } while (ErrorReason(status) == "WORKER_BUSY" && absl::Now() < deadline);
  EXPECT_TRUE(status.ok()) << status;
  client->reset();
}

}  // namespace
}  // namespace ratequant::calibration
