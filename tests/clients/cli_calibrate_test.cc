// `ratequant calibrate` against a worker whose answers the test chooses.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "nlohmann/json.hpp"
#include "tests/clients/fake_worker.h"
#include "tests/clients/process.h"

namespace ratequant::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::CalibrateProgress Progress(v1::CalibrateProgress::Phase phase,
                               int64_t elapsed, uint64_t done = 0,
                               int64_t remaining = -1) {
  v1::CalibrateProgress progress;
  progress.set_phase(phase);
  progress.mutable_elapsed()->set_seconds(elapsed);
  progress.set_tokens_done(done);
  progress.set_tokens_total(done == 0 ? 0 : 8192);
  if (remaining >= 0) progress.mutable_remaining()->set_seconds(remaining);
  return progress;
}

v1::CalibrateProgress Done(bool published) {
  v1::CalibrateProgress done = Progress(v1::CalibrateProgress::DONE, 75, 8192);
  done.mutable_sweep_time()->set_seconds(31);
  done.set_calibration("models/tiny/calibrations/abc");
  done.set_published(published);
  done.add_warnings("K of layer 3 fits badly");
  return done;
}

class CalibrateCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              absl::StrCat("ratequant-cli-", getpid());
    std::filesystem::create_directories(folder_);
    text_ = folder_ / "text.txt";
    std::ofstream(text_) << "Naïve text.\n";
    worker_.messages = {Progress(v1::CalibrateProgress::LOADING, 1),
                        Progress(v1::CalibrateProgress::CAPTURING, 3, 512),
                        Progress(v1::CalibrateProgress::CAPTURING, 13, 4608, 9),
                        Progress(v1::CalibrateProgress::FITTING, 70, 8192),
                        Progress(v1::CalibrateProgress::PUBLISHING, 74, 8192),
                        Done(true)};
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::vector<std::string> Arguments(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "calibrate", "--model-path",      "/models/tiny/",   "--text",
        text_,       "--worker-endpoint", worker_.endpoint()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  FakeWorker worker_;
  std::filesystem::path folder_;
  std::filesystem::path text_;
};

TEST_F(CalibrateCommandTest, PlainOutputHasALineForEachStepAndTheResult) {
  ProcessResult result = RunRateQuant(Arguments());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err,
            "loading the model, 1 s\n"
            "capturing: 6%, 512/8,192 tokens\n"
            "capturing: 56%, 4,608/8,192 tokens, 410 tokens/s, 9 s left\n"
            "fitting curves, 1 min 10 s\n"
            "publishing, 1 min 14 s\n");
  EXPECT_EQ(result.out,
            "model        tiny\n"
            "calibration  abc\n"
            "tokens       8,192\n"
            "time         1 min 15 s, of which 31 s measuring quantizers\n"
            "warnings     K of layer 3 fits badly\n"
            "next         ratequant bitmap get --model tiny --effective-bits "
            "3\n");
}

TEST_F(CalibrateCommandTest, ATerminalShowsABarThatIsTakenDownAtTheEnd) {
  ProcessResult result = RunRateQuant(
      Arguments(), {.environment = {{"TERM", "xterm"}, {"LANG", "C.UTF-8"}},
                    .terminal = true});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out,
              HasSubstr("\rcapturing  ████████████████▉░░░░░░░░░░░░░"
                        "   56%  4,608/8,192 tokens  410 tokens/s  "
                        "9 s left\x1b[K"));
  EXPECT_THAT(result.out, HasSubstr("\r\x1b[K\x1b[2mmodel"));
}

TEST_F(CalibrateCommandTest, NoColorOnATerminalLeavesColoursOut) {
  ProcessResult result = RunRateQuant(
      Arguments(), {.environment = {{"TERM", "xterm"}, {"NO_COLOR", "1"}},
                    .terminal = true});
  EXPECT_THAT(result.out, HasSubstr("\rcapturing  ################----"));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b[2m")));
}

TEST_F(CalibrateCommandTest, TheRequestCarriesWhatWasAskedFor) {
  RunRateQuant(
      Arguments({"--model", "org/tiny", "--quantizer", "kivi:group_size=64",
                 "turboquant", "--sequences", "8", "--sequence-length", "256",
                 "--sinks", "0", "--page-tokens", "64"}));
  auto request = worker_.request();
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->model(), "models/org--tiny");
  EXPECT_EQ(request->model_path(), "/models/tiny/");
  EXPECT_EQ(request->text(), "Naïve text.\n");
  const v1::CalibrateOptions& options = request->options();
  ASSERT_EQ(options.quantizers_size(), 2);
  EXPECT_EQ(options.quantizers(0).group_size(), 64u);
  EXPECT_EQ(options.sequences(), 8u);
  EXPECT_EQ(options.sequence_length(), 256u);
  ASSERT_TRUE(options.has_sink_tokens());
  EXPECT_EQ(options.sink_tokens(), 0u);
  EXPECT_EQ(options.page_tokens(), 64u);
}

TEST_F(CalibrateCommandTest, WhatIsNotGivenIsLeftToTheWorker) {
  RunRateQuant(Arguments());
  auto request = worker_.request();
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->model(), "models/tiny");
  EXPECT_FALSE(request->options().has_sink_tokens());
  EXPECT_EQ(request->options().sequences(), 0u);
  EXPECT_EQ(request->options().quantizers_size(), 0);
}

TEST_F(CalibrateCommandTest, JsonHasOneMessageALine) {
  ProcessResult result = RunRateQuant(Arguments({"--json"}));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  std::vector<std::string> lines =
      absl::StrSplit(result.out, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), worker_.messages.size());
  EXPECT_EQ(nlohmann::json::parse(lines[0])["phase"], "LOADING");
  auto last = nlohmann::json::parse(lines.back());
  EXPECT_EQ(last["phase"], "DONE");
  EXPECT_EQ(last["calibration"], "models/tiny/calibrations/abc");
  EXPECT_EQ(last["published"], true);
}

TEST_F(CalibrateCommandTest, AnUnpublishedCalibrationIsSaidToBe) {
  worker_.messages.back() = Done(false);
  ProcessResult result = RunRateQuant(Arguments());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("state        not published: the allocator "
                                    "can't be reached"));
}

TEST_F(CalibrateCommandTest, TextFromStandardInput) {
  std::vector<std::string> arguments = Arguments();
  arguments[4] = "-";
  ProcessResult result = RunRateQuant(arguments, {.input = "from a pipe"});
  EXPECT_EQ(result.exit_code, 0);
  ASSERT_TRUE(worker_.request().has_value());
  EXPECT_EQ(worker_.request()->text(), "from a pipe");
}

TEST_F(CalibrateCommandTest, ATextThatCannotBeUsedIsRefusedBeforeTheCall) {
  std::ofstream(text_, std::ios::trunc) << "ok\nbad \xff byte\n";
  ProcessResult result = RunRateQuant(Arguments());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("is not UTF-8: line 2, byte 7"));
  std::ofstream(text_, std::ios::trunc) << " \n";
  result = RunRateQuant(Arguments());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("holds no text"));
  EXPECT_FALSE(worker_.request().has_value());
}

TEST_F(CalibrateCommandTest, InterruptCancelsTheCallAndTheWorkerNotices) {
  worker_.messages.resize(2);
  worker_.wait_for_cancel = true;
  std::vector<std::string> command = Arguments();
  command.insert(command.begin(), Program("ratequant"));
  Process process(command);
  ASSERT_TRUE(
      worker_.written.WaitForNotificationWithTimeout(absl::Seconds(30)));
  process.Signal(SIGINT);
  EXPECT_TRUE(
      worker_.cancelled.WaitForNotificationWithTimeout(absl::Seconds(30)));
  ProcessResult result = process.Wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err,
              HasSubstr("ratequant: the calibration was cancelled\n"));
}

TEST_F(CalibrateCommandTest, TimeoutEndsACalibrationThatTakesLonger) {
  worker_.messages.resize(1);
  worker_.wait_for_cancel = true;
  ProcessResult result = RunRateQuant(Arguments({"--timeout", "0.5"}));
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("no answer from the worker at"));
  EXPECT_THAT(result.err, HasSubstr("within 500ms"));
  EXPECT_TRUE(
      worker_.cancelled.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

struct ErrorCase {
  grpc::StatusCode code;
  const char* reason;
  int exit_code;
  const char* next;
};

class CalibrateErrorTest : public CalibrateCommandTest,
                           public ::testing::WithParamInterface<ErrorCase> {};

TEST_P(CalibrateErrorTest, HasItsExitCodeReasonAndNextStep) {
  google::rpc::ErrorInfo info;
  info.set_reason(GetParam().reason);
  google::rpc::Status details;
  details.set_code(GetParam().code);
  details.add_details()->PackFrom(info);
  worker_.messages.resize(1);
  worker_.status = {GetParam().code, "what went wrong",
                    details.SerializeAsString()};
  ProcessResult result = RunRateQuant(Arguments());
  EXPECT_EQ(result.exit_code, GetParam().exit_code);
  EXPECT_THAT(result.err, HasSubstr("ratequant: what went wrong\n"));
  EXPECT_THAT(result.err,
              HasSubstr(absl::StrCat("reason  ", GetParam().reason, "\n")));
  EXPECT_THAT(result.err, HasSubstr(GetParam().next));
}

INSTANTIATE_TEST_SUITE_P(
    Reasons, CalibrateErrorTest,
    ::testing::Values(
        ErrorCase{grpc::StatusCode::NOT_FOUND, "MODEL_PATH_NOT_FOUND", 3,
                  "on the worker's machine"},
        ErrorCase{grpc::StatusCode::PERMISSION_DENIED,
                  "MODEL_PATH_OUTSIDE_ROOT", 1, "model root"},
        ErrorCase{grpc::StatusCode::INVALID_ARGUMENT, "TEXT_TOO_SHORT", 1,
                  "longer --text"},
        ErrorCase{grpc::StatusCode::RESOURCE_EXHAUSTED, "WORKER_BUSY", 1,
                  "try again"},
        ErrorCase{grpc::StatusCode::DEADLINE_EXCEEDED, "ENGINE_HUNG", 1, ""},
        ErrorCase{grpc::StatusCode::ABORTED, "ENGINE_OUT_OF_MEMORY", 1,
                  "--sequence-length"}));

TEST(CalibrateUnreachableTest, SaysHowToStartTheWorker) {
  ProcessResult result =
      RunRateQuant({"calibrate", "--model-path", "m", "--text", "-",
                    "--worker-endpoint", "127.0.0.1:9"},
                   {.input = "text"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err,
              HasSubstr("cannot reach the worker at 127.0.0.1:9: Connection "
                        "refused\n"));
  EXPECT_THAT(result.err, HasSubstr("ratequant-worker --address 127.0.0.1:9"));
}

}  // namespace
}  // namespace ratequant::testing
