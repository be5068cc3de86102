// CalibrateModel against a real worker: a server on a port, an engine process.

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "services/calibration/calibration_builder.h"
#include "services/calibration/memory_need.h"
#include "services/common/status.h"
#include "tests/services/calibration/file_size_limit.h"
#include "tests/services/calibration/process_state.h"
#include "tests/services/calibration/worker_fixture.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using Progress = v1::CalibrateProgress;

class WorkerTest : public WorkerFixture {
 protected:
  void ExpectError(const CallResult& result, absl::StatusCode code,
                   const std::string& reason, const std::string& text) {
    EXPECT_EQ(result.status.code(), code) << result.status;
    EXPECT_EQ(ErrorReason(result.status), reason) << result.status;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(text));
  }
};

TEST_F(WorkerTest, CalibratesAndPublishes) {
  Start();
  const CallResult result = CalibrateModel();
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.done().phase(), Progress::DONE);
  EXPECT_TRUE(result.done().published());
  EXPECT_EQ(result.done().tokens_done(), 128);
  EXPECT_EQ(result.done().tokens_total(), 128);
  ASSERT_TRUE(registry_.Has(result.done().calibration()));

  const v1::Calibration calibration =
      registry_.Get(result.done().calibration());
  EXPECT_EQ(
      "models/tiny/calibrations/" + *CalibrationDigest(calibration, "tiny"),
      calibration.name());
  EXPECT_EQ(calibration.geometry().query_heads(), 4);
  EXPECT_EQ(calibration.capture().sink_tokens(), 4);
  EXPECT_DOUBLE_EQ(calibration.capture().mean_nll(), 2.5);
  const int groups = 3 * 2 * 2;
  EXPECT_EQ(calibration.groups_size(), groups);
  ASSERT_EQ(calibration.tables_size(), 5);
  for (const v1::DistortionTable& table : calibration.tables()) {
    EXPECT_THAT(table.widths(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
    EXPECT_EQ(table.mse_size(), groups * 8);
    EXPECT_EQ(table.c2_size(), groups * 8);
    EXPECT_EQ(table.group_fits_size(), groups);
    EXPECT_EQ(table.key_page_bytes_size(), 8);
    EXPECT_EQ(table.page_tokens(), 32);
    EXPECT_EQ(table.format_version(), 1);
    EXPECT_GT(table.key_fit().beta(), 2);
    EXPECT_GT(table.value_fit().r2(), 0.96);
    EXPECT_EQ(table.c2_standard_error_size(), groups * 8);
    for (const v1::GainPrediction& gain :
         {table.key_gain(), table.value_gain()}) {
      EXPECT_GE(gain.am_gm(), 1);
      EXPECT_EQ(gain.budgets_size(), 6);
    }
  }
  EXPECT_EQ(calibration.capture().sweep_device(), "cpu");
  EXPECT_THAT(calibration.capture().sweep_software(),
              ElementsAre(HasSubstr("ratequant "), "packed format 1"));
  // One 4-bit page of rtn: 32 rows of 16 bytes and 32 fp16 scales.
  EXPECT_EQ(calibration.tables(0).key_page_bytes(3), 32 * 16 + 32 * 2);
  EXPECT_THAT(calibration.warnings(),
              Contains(HasSubstr("Only 128 calibration tokens")));
  EXPECT_THAT(result.done().warnings(),
              Contains(HasSubstr("Only 128 calibration tokens")));
}

TEST_F(WorkerTest, TheSameCaptureGivesTheSameCalibration) {
  Start();
  const CallResult first = CalibrateModel();
  const CallResult second = CalibrateModel();
  ASSERT_TRUE(first.status.ok() && second.status.ok());
  EXPECT_EQ(first.done().calibration(), second.done().calibration());
}

TEST_F(WorkerTest, CountsBytesInPagesOfTheSizeThatWasAskedFor) {
  Start();
  v1::CalibrateModelRequest request = Request();
  request.mutable_options()->set_page_tokens(64);
  const CallResult large = CalibrateModel(request);
  ASSERT_TRUE(large.status.ok()) << large.status;
  const v1::Calibration calibration = registry_.Get(large.done().calibration());
  ASSERT_EQ(calibration.tables_size(), 5);
  for (const v1::DistortionTable& table : calibration.tables()) {
    EXPECT_EQ(table.page_tokens(), 64);
  }
  // 4 bits, head_dim 32. rtn: 64 rows of 16 bytes and 64 fp16 scales. kivi's K:
  // two blocks of 32 tokens, each with a scale and a zero for every channel.
  EXPECT_EQ(calibration.tables(0).key_page_bytes(3), 64 * 16 + 64 * 2);
  EXPECT_EQ(calibration.tables(1).key_page_bytes(3), 64 * 16 + 2 * 32 * 4);
  // What was measured is the same; what it costs isn't.
  const CallResult small = CalibrateModel();
  EXPECT_NE(small.done().calibration(), large.done().calibration());
  const v1::Calibration other = registry_.Get(small.done().calibration());
  EXPECT_THAT(other.tables(0).c2(),
              ElementsAreArray(calibration.tables(0).c2()));
}

TEST_F(WorkerTest, ShowsEveryPhaseInOrder) {
  Start("slow");
  const CallResult result = CalibrateModel();
  ASSERT_TRUE(result.status.ok()) << result.status;
  std::vector<int> phases;
  bool estimated = false;
  for (const Progress& progress : result.progress) {
    if (phases.empty() || phases.back() != progress.phase()) {
      phases.push_back(progress.phase());
    }
    estimated |= progress.phase() == Progress::CAPTURING &&
                 progress.tokens_done() > 0 && progress.has_remaining();
    EXPECT_LE(progress.tokens_done(), 128);
  }
  EXPECT_THAT(phases, ElementsAre(Progress::LOADING, Progress::CAPTURING,
                                  Progress::FITTING, Progress::PUBLISHING,
                                  Progress::DONE));
  // The engine takes 1.2 s: twice a second means twice.
  EXPECT_TRUE(estimated);
  const auto& sweep = result.done().sweep_time();
  EXPECT_GT(sweep.seconds() + sweep.nanos(), 0);
}

TEST_F(WorkerTest, ShowsThatItLivesWhileTheEngineIsSilent) {
  options_.engine.timeout = absl::Seconds(4);
  Start("hang@middle");
  const CallResult result = CalibrateModel();
  ExpectError(result, absl::StatusCode::kDeadlineExceeded, "ENGINE_HUNG",
              "said nothing for 4s");
  int capturing = 0;
  for (const Progress& progress : result.progress) {
    capturing += progress.phase() == Progress::CAPTURING;
  }
  EXPECT_GE(capturing, 3);
}

TEST_F(WorkerTest, FindsTensorsThatAreNotFinite) {
  Start("nan@9.17", "20,2,4,32");
  v1::CalibrateModelRequest request = Request();
  request.mutable_options()->set_sequences(12);
  const CallResult result = CalibrateModel(request);
  ExpectError(result, absl::StatusCode::kDataLoss, "NON_FINITE_CAPTURE",
              "sequence 9: ");
  EXPECT_THAT(
      std::string(result.status.message()),
      AllOf(HasSubstr("layer 17"), HasSubstr("head 1"), HasSubstr("token 7")));
  Start("inf-gradient@1.1");
  ExpectError(CalibrateModel(), absl::StatusCode::kDataLoss,
              "NON_FINITE_CAPTURE", "gradient");
}

TEST_F(WorkerTest, FindsTensorsThatAreAllZero) {
  Start("zero-values");
  ExpectError(CalibrateModel(), absl::StatusCode::kDataLoss, "ALL_ZERO_CAPTURE",
              "layer 0");
  Start("zero-gradients");
  ExpectError(CalibrateModel(), absl::StatusCode::kDataLoss, "ALL_ZERO_CAPTURE",
              "every gradient of K is zero");
}

TEST_F(WorkerTest, WarnsOfHeadsWithoutGradient) {
  Start("zero-head");
  const CallResult result = CalibrateModel();
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.done().warnings(),
              Contains(HasSubstr("3 of 12 groups have no gradient (first: "
                                 "layer 0, head 0, K)")));
}

TEST_F(WorkerTest, PassesOnTheEnginesErrors) {
  Start("crash@middle");
  ExpectError(CalibrateModel(), absl::StatusCode::kAborted, "ENGINE_CRASHED",
              "the fake engine's last words");
  for (const char* place : {"start", "hello", "middle", "end"}) {
    Start(absl::StrCat("sigkill@", place));
    ExpectError(CalibrateModel(), absl::StatusCode::kAborted,
                "ENGINE_OUT_OF_MEMORY", "signal 9");
  }
  Start("too-short@start");
  ExpectError(CalibrateModel(), absl::StatusCode::kInvalidArgument,
              "TEXT_TOO_SHORT", "the fake engine says so");
  // The worker goes on.
  Start("none");
  EXPECT_TRUE(CalibrateModel().status.ok());
}

TEST_F(WorkerTest, MeasuresWhatSupportsTheHeadDimAndSaysWhatDoesNot) {
  Start("none", "1,1,1,24");
  v1::CalibrateModelRequest request = Request();
  CallResult result = CalibrateModel(request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(registry_.Get(result.done().calibration()).tables_size(), 1);
  for (const char* left_out : {"kivi", "quarot", "turboquant"}) {
    EXPECT_THAT(
        result.done().warnings(),
        Contains(HasSubstr(absl::StrCat(left_out, " was not measured: "))));
  }
  request.mutable_options()->add_quantizers()->set_kind(
      v1::Quantizer::TURBOQUANT);
  ExpectError(CalibrateModel(request), absl::StatusCode::kInvalidArgument,
              "UNSUPPORTED_QUANTIZER", "24");
  Start("none", "1,1,1,20");
  ExpectError(CalibrateModel(), absl::StatusCode::kInvalidArgument,
              "UNSUPPORTED_SHAPE", "no quantizer supports head_dim 20");
}

TEST_F(WorkerTest, MeasuresOnlyWhatWasAskedFor) {
  Start();
  v1::CalibrateModelRequest request = Request();
  v1::Quantizer* quantizer = request.mutable_options()->add_quantizers();
  quantizer->set_kind(v1::Quantizer::TURBOQUANT);
  quantizer->set_seed(7);
  quantizer->set_value_scale(v1::Quantizer::L2);
  const CallResult result = CalibrateModel(request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  const v1::Calibration calibration =
      registry_.Get(result.done().calibration());
  ASSERT_EQ(calibration.tables_size(), 1);
  const v1::Quantizer& measured = calibration.tables(0).quantizer();
  EXPECT_EQ(measured.seed(), 7);
  EXPECT_EQ(measured.key_scale(), v1::Quantizer::L2);
  EXPECT_EQ(measured.value_scale(), v1::Quantizer::L2);
}

TEST_F(WorkerTest, RefusesBadRequests) {
  Start();
  const auto refused = [this](auto change, const std::string& reason,
                              const std::string& text) {
    v1::CalibrateModelRequest request = Request();
    change(request);
    ExpectError(CalibrateModel(request), absl::StatusCode::kInvalidArgument,
                reason, text);
  };
  using R = v1::CalibrateModelRequest&;
  refused([](R r) { r.set_model("models/a b"); }, "INVALID_MODEL_ID",
          "'models/a b'");
  refused([](R r) { r.clear_model(); }, "INVALID_MODEL_ID", "''");
  refused([](R r) { r.set_text(" \n\t"); }, "TEXT_EMPTY", "no text");
  refused([](R r) { r.clear_model_path(); }, "INVALID_ARGUMENT", "is empty");
  refused([](R r) { r.mutable_options()->set_sequence_length(100); },
          "UNSUPPORTED_SHAPE", "100 tokens");
  refused([](R r) { r.mutable_options()->set_sequence_length(16); },
          "UNSUPPORTED_SHAPE", "16 tokens; must be a multiple of 32");
  refused(
      [](R r) {
        r.mutable_options()->set_sequence_length(32);
        r.mutable_options()->set_page_tokens(64);
        v1::Quantizer* kivi = r.mutable_options()->add_quantizers();
        kivi->set_kind(v1::Quantizer::KIVI);
        kivi->set_group_size(64);
      },
      "UNSUPPORTED_SHAPE", "32 tokens; must be a multiple of 64");
  refused([](R r) { r.mutable_options()->set_sequence_length(32800); },
          "UNSUPPORTED_SHAPE", "at most 32768");
  refused([](R r) { r.mutable_options()->set_sequences(4097); },
          "UNSUPPORTED_SHAPE", "at most 4096");
  refused([](R r) { r.mutable_options()->add_quantizers(); },
          "UNSUPPORTED_QUANTIZER", "options.quantizers[0].kind");
  refused(
      [](R r) {
        for (int i = 0; i < 2; ++i) {
          r.mutable_options()->add_quantizers()->set_kind(v1::Quantizer::RTN);
        }
      },
      "UNSUPPORTED_QUANTIZER", "rtn is listed twice");
}

TEST_F(WorkerTest, RefusesACaptureBeyondItsMemory) {
  const auto plan = MakePlan("models/tiny", TestCapture::Options(), "");
  const uint64_t least = TableBytes(*plan, TestCapture::Geometry()) +
                         4 * TestCapture::kTensorBytes;
  options_.memory_limit = least;
  Start();
  const CallResult enough = CalibrateModel();
  ASSERT_TRUE(enough.status.ok()) << enough.status;
  options_.memory_limit = kDefaultMemoryLimit;
  Start();
  EXPECT_EQ(CalibrateModel().done().calibration(), enough.done().calibration());

  // Calibrations that may run at the same time share it.
  options_.memory_limit = 2 * least - 1;
  options_.queue.max_concurrent = 2;
  Start();
  const char kMessage[] =
      "one layer of 64 tokens takes 0.1 MiB and the tables of 3 layers take";
  ExpectError(CalibrateModel(), absl::StatusCode::kFailedPrecondition,
              "MEMORY_LIMIT_EXCEEDED", kMessage);
  ExpectError(CalibrateStream(capture_.Chunks("models/tiny")),
              absl::StatusCode::kFailedPrecondition, "MEMORY_LIMIT_EXCEEDED",
              kMessage);
}

TEST_F(WorkerTest, SaysThatSharedMemoryIsExhausted) {
  Start();
  {
    FileSizeLimit limit(100 << 10);  // of a segment of 256 KiB
    ExpectError(CalibrateModel(), absl::StatusCode::kAborted,
                "ENGINE_OUT_OF_MEMORY",
                "cannot get 262144 bytes of shared memory: posix_fallocate: "
                "File too large");
  }
  EXPECT_TRUE(CalibrateModel().status.ok());
}

TEST_F(WorkerTest, ReadsModelsOnlyBelowItsRoot) {
  fs::create_directories(dir_ / "secret");
  fs::create_directory_symlink(dir_ / "secret", dir_ / "models/link");
  Start();
  v1::CalibrateModelRequest request = Request();
  for (const std::string& path :
       {std::string("../secret"), std::string("link"), dir_ / "secret",
        std::string("tiny/../../secret"), std::string("/etc")}) {
    request.set_model_path(path);
    ExpectError(CalibrateModel(request), absl::StatusCode::kPermissionDenied,
                "MODEL_PATH_OUTSIDE_ROOT", path);
  }
  request.set_model_path("absent");
  ExpectError(CalibrateModel(request), absl::StatusCode::kNotFound,
              "MODEL_PATH_NOT_FOUND", "'absent'");
  request.set_model_path(dir_ / "models/tiny");
  EXPECT_TRUE(CalibrateModel(request).status.ok());
}

TEST_F(WorkerTest, TakesTextsOf64Mebibytes) {
  Start();
  v1::CalibrateModelRequest request = Request();
  request.set_text(std::string(64 << 20, 'x'));
  const CallResult result = CalibrateModel(request);
  EXPECT_TRUE(result.status.ok()) << result.status;
}

TEST_F(WorkerTest, CancellingFreesEverythingAndTheWorkerGoesOn) {
  Start("hang@middle");
  grpc::ClientContext context;
  auto stream = stub_->CalibrateModel(&context, Request());
  Progress progress;
  while (stream->Read(&progress) && progress.phase() != Progress::CAPTURING) {
  }
  const pid_t pid = EnginePid();
  ASSERT_FALSE(IsGone(pid));
  ASSERT_GT(OpenMemoryFiles(), 0);
  context.TryCancel();
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(absl::IsCancelled(Finish(*stream).status));
  EXPECT_TRUE(EndsWithin(pid, absl::Seconds(10)));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  // The next call runs as soon as the engine is dead; it hangs, too.
  grpc::ClientContext again;
  again.set_deadline(std::chrono::system_clock::now() +
                     std::chrono::seconds(2));
  const CallResult next = Finish(*stub_->CalibrateModel(&again, Request()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(next.status)) << next.status;
  EXPECT_FALSE(next.progress.empty());
}

TEST_F(WorkerTest, ADeadlineFreesTheWorkerToo) {
  Start("hang@hello");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(1));
  auto stream = stub_->CalibrateModel(&context, Request());
  EXPECT_TRUE(absl::IsDeadlineExceeded(Finish(*stream).status));
  EXPECT_TRUE(EndsWithin(EnginePid(), absl::Seconds(10)));
}

TEST_F(WorkerTest, PublishesLaterWhenTheAllocatorIsDown) {
  registry_.Down();
  Start();
  const CallResult result = CalibrateModel();
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.done().published());
  EXPECT_FALSE(registry_.Has(result.done().calibration()));
  registry_.Up();
  EXPECT_TRUE(
      registry_.WaitFor(result.done().calibration(), absl::Seconds(30)));
}

TEST_F(WorkerTest, PublishesTheSpoolAfterARestart) {
  registry_.Down();
  Start();
  const CallResult result = CalibrateModel();
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_FALSE(result.done().published());
  StopWorker();
  registry_.Up();
  Start();
  EXPECT_TRUE(
      registry_.WaitFor(result.done().calibration(), absl::Seconds(30)));
}

TEST_F(WorkerTest, ReportsThatTheAllocatorRefusedIt) {
  registry_.Answer(FieldError("INVALID_CALIBRATION", "tables", "is empty"));
  Start();
  ExpectError(CalibrateModel(), absl::StatusCode::kInternal, "PUBLISH_REFUSED",
              "tables: is empty");
}

TEST_F(WorkerTest, ShuttingDownTellsTheClient) {
  Start("hang@middle");
  grpc::ClientContext context;
  auto stream = stub_->CalibrateModel(&context, Request());
  const pid_t pid = EnginePid();
  ASSERT_GT(pid, 0);
  const absl::Time begin = absl::Now();
  worker_->Shutdown(absl::ZeroDuration());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
  EXPECT_TRUE(IsGone(pid));
  ExpectError(Finish(*stream), absl::StatusCode::kUnavailable,
              "WORKER_SHUTTING_DOWN", "shutting down");
}

}  // namespace
}  // namespace ratequant::calibration
