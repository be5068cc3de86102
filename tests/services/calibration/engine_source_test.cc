#include "services/calibration/engine_source.h"

#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/calibration/process_state.h"
#include "tests/services/calibration/test_capture.h"

namespace ratequant::calibration {
namespace {

using ::testing::HasSubstr;

constexpr char kFakeEngine[] = "tests/services/calibration/fake_engine.py";

class EngineSourceTest : public testing::Test {
 protected:
  EngineSourceTest() : cancel_(*CancelToken::Create()), pipes_(OpenPipes()) {
    capture_.WriteTo(dir_ / "tensors");
  }

  // Whatever happened: no process, descriptor or mapping is left.
  void TearDown() override {
    source_.reset();
    EXPECT_EQ(OpenMemoryFiles(), 0);
    EXPECT_EQ(OpenPipes(), pipes_);
    const pid_t pid = EnginePid();
    EXPECT_TRUE(pid <= 0 || IsGone(pid));
  }

  EngineSource& Start(const std::string& fault,
                      absl::Duration timeout = absl::Seconds(30)) {
    EngineOptions options;
    options.command = {"/usr/bin/python3", kFakeEngine, "--geometry",
                       "3,2,4,32",         "--tensors", dir_ / "tensors",
                       "--fault",          fault,       "--pid-file",
                       dir_ / "pid"};
    options.timeout = timeout;
    options.stall_timeout = stall_timeout_;
    options.exit_patience = absl::Milliseconds(500);
    auto plan = MakePlan("models/m", TestCapture::Options(), "");
    source_ = std::make_unique<EngineSource>(options, *plan, dir_.path(), text_,
                                             *cancel_);
    return *source_;
  }

  // Runs the source to its end.
  absl::Status Drain() {
    auto shape = source_->Open();
    if (!shape.ok()) return shape.status();
    for (layers_ = 0;; ++layers_) {
      auto layer = source_->Next();
      if (!layer.ok()) return layer.status();
      if (!layer->has_value()) return absl::OkStatus();
      check_(**layer);
    }
  }

  absl::Status Outcome(const std::string& fault,
                       absl::Duration timeout = absl::Seconds(30)) {
    Start(fault, timeout);
    return Drain();
  }

  void ExpectError(const std::string& fault, absl::StatusCode code,
                   const std::string& reason, const std::string& text) {
    const absl::Status status = Outcome(fault);
    EXPECT_EQ(status.code(), code) << fault << ": " << status;
    EXPECT_EQ(ErrorReason(status), reason) << fault << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << fault;
  }

  void ExpectViolation(const std::string& fault, const std::string& text) {
    ExpectError(fault, absl::StatusCode::kInternal, "ENGINE_ERROR", text);
  }

  pid_t EnginePid() {
    pid_t pid = -1;
    std::ifstream(dir_ / "pid") >> pid;
    return pid;
  }

  TestCapture capture_;
  TempDir dir_;
  std::string text_ = "Some text.";
  std::shared_ptr<CancelToken> cancel_;
  const int pipes_;
  std::unique_ptr<EngineSource> source_;
  uint32_t layers_ = 0;
  absl::Duration stall_timeout_ = absl::Minutes(10);
  std::function<void(const CapturedLayer&)> check_ = [](const auto&) {};
};

TEST_F(EngineSourceTest, DeliversEveryLayerAndTheLoss) {
  check_ = [this](const CapturedLayer& layer) {
    const void* tensors[] = {layer.key, layer.value, layer.key_gradient,
                             layer.value_gradient};
    for (int kind = 0; kind < 4; ++kind) {
      EXPECT_EQ(0, memcmp(tensors[kind],
                          capture_.Tensor(layer.sequence, layer.layer, kind),
                          TestCapture::kTensorBytes));
    }
  };
  ASSERT_TRUE(Outcome("none").ok());
  EXPECT_EQ(layers_, TestCapture::kSequences * TestCapture::kLayers);
  const v1::CaptureInfo info = source_->Info();
  EXPECT_DOUBLE_EQ(info.mean_nll(), 2.5);
  EXPECT_EQ(info.dtype(), "float32");
  EXPECT_EQ(info.sink_tokens(), 4);
  EXPECT_EQ(info.software(0), "fake-engine 1");
}

TEST_F(EngineSourceTest, ReportsACrashWithTheLastWords) {
  for (const char* place : {"start", "hello", "middle", "end"}) {
    ExpectError(absl::StrCat("crash@", place), absl::StatusCode::kAborted,
                "ENGINE_CRASHED", "the fake engine's last words");
    ExpectError(absl::StrCat("exit@", place), absl::StatusCode::kAborted,
                "ENGINE_CRASHED", "ended early with exit status 0");
    ExpectError(absl::StrCat("sigkill@", place), absl::StatusCode::kAborted,
                "ENGINE_OUT_OF_MEMORY", "signal 9");
  }
}

TEST_F(EngineSourceTest, NoticesACrashAlthoughAChildHoldsThePipes) {
  const absl::Time begin = absl::Now();
  const absl::Status status = Outcome("crash-with-child@middle");
  EXPECT_EQ(ErrorReason(status), "ENGINE_CRASHED") << status;
  EXPECT_LT(absl::Now() - begin, absl::Seconds(15));
  // The child was in the engine's process group.
  const std::string text(status.message());
  const pid_t child = atoi(text.c_str() + text.find("child ") + 6);
  ASSERT_GT(child, 1) << text;
  EXPECT_TRUE(EndsWithin(child, absl::Seconds(10)));
}

TEST_F(EngineSourceTest, ReportsSilence) {
  for (const char* place : {"start", "hello", "middle", "end"}) {
    const absl::Status status =
        Outcome(absl::StrCat("hang@", place), absl::Seconds(1));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << place << status;
    EXPECT_EQ(ErrorReason(status), "ENGINE_HUNG") << place;
  }
}

TEST_F(EngineSourceTest, AHeartbeatIsNotSilence) {
  // Six seconds of nothing else, with a patience of four.
  EXPECT_TRUE(Outcome("beat@middle", absl::Seconds(4)).ok());
}

TEST_F(EngineSourceTest, HeartbeatsAloneAreNotEnoughForEver) {
  stall_timeout_ = absl::Seconds(1);
  const absl::Status status = Outcome("beat@middle");
  EXPECT_EQ(ErrorReason(status), "ENGINE_HUNG") << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("nothing but heartbeats for 1s"));
}

TEST_F(EngineSourceTest, PassesOnWhatTheEngineReports) {
  using absl::StatusCode;
  ExpectError("unreadable@start", StatusCode::kFailedPrecondition,
              "MODEL_UNREADABLE", "the fake engine says so");
  ExpectError("unsupported@start", StatusCode::kFailedPrecondition,
              "UNSUPPORTED_MODEL", "the fake engine says so");
  ExpectError("too-short@start", StatusCode::kInvalidArgument, "TEXT_TOO_SHORT",
              "the fake engine says so");
  ExpectError("out-of-memory@middle", StatusCode::kAborted,
              "ENGINE_OUT_OF_MEMORY", "the fake engine says so");
  ExpectError("engine-error@middle", StatusCode::kInternal, "ENGINE_ERROR",
              "the fake engine says so");
  ExpectError("unknown-reason@middle", StatusCode::kInternal, "ENGINE_ERROR",
              "NOBODY_KNOWS");
}

TEST_F(EngineSourceTest, RefusesWhatIsNoMessage) {
  for (const char* place : {"start", "hello", "middle", "end"}) {
    ExpectViolation(absl::StrCat("garbage@", place), "not a JSON object");
    ExpectViolation(absl::StrCat("oversized@", place),
                    "longer than 65536 bytes");
  }
  ExpectViolation("array@middle", "not a JSON object");
  ExpectViolation("unknown-type@middle", "its type is none of");
}

TEST_F(EngineSourceTest, RefusesAHelloThatIsWrong) {
  ExpectViolation("wrong-sequences", "announces 3 x 64");
  ExpectViolation("wrong-protocol", "speaks protocol 2");
  ExpectViolation("bad-dtype", "'float64'");
  ExpectViolation("bad-digest", "model_digest is neither empty nor 64");
  ExpectViolation("missing-field", "'head_dim' is missing");
  ExpectViolation("text-for-number", "'layers' is not a non-negative integer");
  ExpectViolation("second-hello@middle", "second 'hello'");
}

TEST_F(EngineSourceTest, RefusesLayersOutOfOrder) {
  ExpectViolation("bad-slot", "slot 1000 of ");
  ExpectViolation("bad-layer", "layer 3 of 3");
  ExpectViolation("bad-sequence", "while sequence 0 has 0 of 3 layers");
  ExpectViolation("same-layer", "layer 0 of sequence 0 for the second time");
  ExpectViolation("bad-loss", "a loss of -1 nats");
  ExpectViolation("early-done", "'done' after 0 of 2 sequences");
}

TEST_F(EngineSourceTest, RefusesASlotThatIsFilledBeforeItsRelease) {
  // The worker is slow here, so that the engine gets ahead for sure.
  Start("ignore-release");
  ASSERT_TRUE(source_->Open().ok());
  auto layer = source_->Next();
  ASSERT_TRUE(layer.ok()) << layer.status();
  // It has said everything once it waits no more: it exits after 'done'.
  ASSERT_TRUE(EndsWithin(EnginePid(), absl::Seconds(10)));
  layer = source_->Next();
  EXPECT_EQ(ErrorReason(layer.status()), "ENGINE_ERROR");
  EXPECT_THAT(std::string(layer.status().message()),
              HasSubstr("slot 0 before it was released"));
}

TEST_F(EngineSourceTest, SurvivesAFloodOfLogging) {
  for (const char* place : {"start", "middle", "end"}) {
    const absl::Status status = Outcome(absl::StrCat("flood-stderr@", place));
    EXPECT_TRUE(status.ok()) << place << status;
  }
}

TEST_F(EngineSourceTest, ClosedOutputIsNoEnd) {
  ExpectViolation("close-output@middle", "closed its output and stayed");
}

TEST_F(EngineSourceTest, HowItExitsAfterDoneDoesNotMatter) {
  EXPECT_TRUE(Outcome("bad-exit").ok());
  EXPECT_TRUE(Outcome("no-exit").ok());
}

TEST_F(EngineSourceTest, SaysThatTheEngineIsNotThere) {
  EngineOptions options;
  options.command = {"no-such-program"};
  auto plan = MakePlan("models/m", TestCapture::Options(), "");
  EngineSource source(options, *plan, dir_.path(), text_, *cancel_);
  const absl::Status status = source.Open().status();
  EXPECT_EQ(ErrorReason(status), "ENGINE_ERROR");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("there is no program 'no-such-program' in PATH"));
}

TEST_F(EngineSourceTest, CancellingEndsAWaitAtOnce) {
  Start("hang@middle");
  ASSERT_TRUE(source_->Open().ok());
  std::thread canceller([this]() {
    // Whether the wait has begun by then or not, it has to end.
    cancel_->Cancel(absl::CancelledError("enough"));
  });
  absl::Status status;
  for (int i = 0; status.ok() && i < 10; ++i) status = source_->Next().status();
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_GT(EnginePid(), 0);
}

TEST_F(EngineSourceTest, DestroyingItKillsAnEngineThatIgnoresEverything) {
  Start("hang@hello");
  ASSERT_TRUE(source_->Open().ok());
  const pid_t pid = EnginePid();
  ASSERT_FALSE(IsGone(pid));
  source_.reset();
  EXPECT_TRUE(IsGone(pid));
}

}  // namespace
}  // namespace ratequant::calibration
