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

// K has a mean in one channel, which rtn's ranges suffer from.
TEST_F(WorkerStreamTest, SubtractsMeans) {
  constexpr int kChannel = 3;
  constexpr uint32_t kDim = TestCapture::kHeadDim;
  constexpr size_t kRows = TestCapture::kHeads * TestCapture::kLength;
  for (uint32_t s = 0; s < TestCapture::kSequences; ++s) {
    for (uint32_t layer = 0; layer < TestCapture::kLayers; ++layer) {
      float* const keys = capture_.Tensor(s, layer, 0);
      for (size_t r = 0; r < kRows; ++r) keys[r * kDim + kChannel] += 40.0f;
    }
  }
  Start();
  const CallResult plain = CalibrateStream(Chunks());
  std::vector<v1::CalibrateChunk> chunks = Chunks();
  chunks[0].mutable_header()->mutable_options()->set_subtract_means(true);
  const CallResult centred = CalibrateStream(chunks);
  ASSERT_TRUE(plain.status.ok()) << plain.status;
  ASSERT_TRUE(centred.status.ok()) << centred.status;
  const v1::Calibration before = registry_.Get(plain.done().calibration());
  const v1::Calibration after = registry_.Get(centred.done().calibration());
  EXPECT_TRUE(before.means().empty());
  EXPECT_FALSE(before.capture().means_subtracted());
  EXPECT_TRUE(after.capture().means_subtracted());

  // The mean of the first sequence without its sinks.
  const int sinks = static_cast<int>(after.capture().sink_tokens());
  ASSERT_EQ(after.means_size(), after.groups_size() * static_cast<int>(kDim));
  const float* const head1 =
      capture_.Tensor(0, 2, 0) + TestCapture::kLength * kDim;
  double sum = 0;
  for (uint32_t t = sinks; t < TestCapture::kLength; ++t) {
    sum += head1[t * kDim + kChannel];
  }
  const int group = (2 * TestCapture::kHeads + 1) * 2;
  EXPECT_NEAR(after.means(group * kDim + kChannel),
              sum / (TestCapture::kLength - sinks), 1e-4);
  EXPECT_GT(after.means(group * kDim + kChannel), 35);
  for (int g = 0; g < after.groups_size(); ++g) {
    const double was = before.tables(0).mse(g * 8 + 3);
    const double is = after.tables(0).mse(g * 8 + 3);
    if (g % 2 == 0) {
      EXPECT_LT(is, 0.1 * was) << "K group " << g;
    } else {
      EXPECT_NEAR(is, was, 0.2 * was) << "V group " << g;
    }
  }

  // A value that isn't finite is still found where it is.
  capture_.Tensor(1, 1, 0)[(1 * TestCapture::kLength + 7) * kDim + 2] =
      std::numeric_limits<float>::quiet_NaN();
  chunks = Chunks();
  chunks[0].mutable_header()->mutable_options()->set_subtract_means(true);
  const absl::Status status = CalibrateStream(chunks).status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("sequence 1: NaN in the values of K, layer 1, head 1, "
                        "token 7, channel 2"));
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
