// The programs themselves: ratequant-worker, and with it ratequant-allocator.

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/calibration/engine_process.h"
#include "services/common/status.h"
#include "tests/services/calibration/process_state.h"
#include "tests/services/calibration/worker_fixture.h"

namespace ratequant::calibration {
namespace {

using ::testing::HasSubstr;

std::string Program(const std::string& name) {
  const char* folder = getenv("RATEQUANT_BIN_DIR");
  return absl::StrCat(folder == nullptr ? "build/bin" : folder, "/", name);
}

class WorkerProcessTest : public testing::Test {
 protected:
  WorkerProcessTest() : never_(*CancelToken::Create()) {
    capture_.WriteTo(dir_ / "tensors");
    std::filesystem::create_directories(dir_ / "models/tiny");
  }

  void SetUp() override {
    if (!std::filesystem::exists(Program("ratequant-worker"))) {
      GTEST_SKIP() << Program("ratequant-worker") << " isn't built";
    }
  }

  std::vector<std::string> WorkerCommand(const std::string& fault) {
    // Quoted, since the worker splits it into words.
    const std::string engine = absl::StrCat(
        "'", absl::StrJoin(FakeEngineCommand(dir_, fault), "' '"), "'");
    return {Program("ratequant-worker"),
            "--address",
            "127.0.0.1:0",
            "--port-file",
            dir_ / "worker.port",
            "--model-root",
            dir_ / "models",
            "--spool-dir",
            dir_ / "spool",
            "--engine",
            engine};
  }

  std::unique_ptr<EngineProcess> StartProgram(
      const std::vector<std::string>& command) {
    auto process = EngineProcess::Start(command);
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }

  // Runs a program to its end; its exit status, -1 when it goes on for a
  // minute.
  int ExitStatus(std::vector<std::string> command,
                 const std::vector<std::string>& more, std::string* errors) {
    command.insert(command.end(), more.begin(), more.end());
    auto process = StartProgram(command);
    const auto exit = process->WaitForExit(absl::Minutes(1), *never_);
    *errors = process->StderrTail();
    return exit.has_value() && !exit->by_signal ? exit->code : -1;
  }

  std::string AddressIn(const std::string& port_file) {
    return absl::StrCat("127.0.0.1:",
                        WaitForNumber(dir_ / port_file, absl::Seconds(60)));
  }

  v1::CalibrateModelRequest Request() {
    v1::CalibrateModelRequest request;
    request.set_model("models/tiny");
    request.set_model_path("tiny");
    request.set_text("Some text.");
    *request.mutable_options() = TestCapture::Options();
    return request;
  }

  // False where the allocator isn't built.
  bool StartAllocator(std::unique_ptr<EngineProcess>& allocator) {
    if (!std::filesystem::exists(Program("ratequant-allocator"))) return false;
    allocator = StartProgram(
        {Program("ratequant-allocator"), "--address", "127.0.0.1:0",
         "--port-file", dir_ / "allocator.port", "--data-dir", dir_ / "data"});
    return true;
  }

  // The last message of a whole calibration by the worker.
  v1::CalibrateProgress Calibrate() {
    const auto stub = ConnectTo(AddressIn("worker.port"));
    grpc::ClientContext context;
    const auto stream = stub->CalibrateModel(&context, Request());
    v1::CalibrateProgress last;
    const absl::Status status = Drain(*stream, &last);
    EXPECT_TRUE(status.ok()) << status;
    return last;
  }

  // The newest calibration that the allocator has.
  absl::Status GetLatest(v1::Calibration* calibration) {
    const auto stub = v1::RegistryService::NewStub(grpc::CreateChannel(
        AddressIn("allocator.port"), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::GetCalibrationRequest request;
    request.set_name("models/tiny/calibrations/latest");
    return StatusOf(stub->GetCalibration(&context, request, calibration));
  }

  // A worker in the middle of a call whose engine has stopped answering.
  struct HangingCall {
    std::unique_ptr<EngineProcess> worker;
    std::unique_ptr<v1::CalibrationService::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::CalibrateProgress>> stream;
    pid_t engine = 0;
  };

  void StartHangingCall(HangingCall& call) {
    auto command = WorkerCommand("hang@middle");
    command.insert(command.end(), {"--shutdown-grace", "0.5"});
    command.push_back("--no-publish");
    call.worker = StartProgram(command);
    call.stub = ConnectTo(AddressIn("worker.port"));
    call.stream = call.stub->CalibrateModel(&call.context, Request());
    call.engine = WaitForNumber(dir_ / "engine.pid", absl::Seconds(60));
    ASSERT_GT(call.engine, 0);
  }

  static absl::Status Drain(grpc::ClientReader<v1::CalibrateProgress>& stream,
                            v1::CalibrateProgress* last) {
    while (stream.Read(last)) {
    }
    return StatusOf(stream.Finish());
  }

  TestCapture capture_;
  TempDir dir_;
  std::shared_ptr<CancelToken> never_;
};

TEST_F(WorkerProcessTest, SigtermEndsTheRunningCallAndTheProcess) {
  HangingCall call;
  ASSERT_NO_FATAL_FAILURE(StartHangingCall(call));
  kill(call.worker->pid(), SIGTERM);
  v1::CalibrateProgress last;
  const absl::Status status = Drain(*call.stream, &last);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(ErrorReason(status), "WORKER_SHUTTING_DOWN");
  const auto exit = call.worker->WaitForExit(absl::Seconds(20), *never_);
  ASSERT_TRUE(exit.has_value());
  EXPECT_TRUE(exit->clean()) << exit->ToString();
  EXPECT_TRUE(IsGone(call.engine));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "worker.port"));
}

TEST_F(WorkerProcessTest, TheEngineDoesNotOutliveAWorkerThatIsKilled) {
  HangingCall call;
  ASSERT_NO_FATAL_FAILURE(StartHangingCall(call));
  // Not its group: the engine has its own.
  kill(call.worker->pid(), SIGKILL);
  EXPECT_TRUE(EndsWithin(call.engine, absl::Seconds(20)));
  v1::CalibrateProgress last;
  EXPECT_TRUE(absl::IsUnavailable(Drain(*call.stream, &last)));
}

TEST_F(WorkerProcessTest, SaysWhyItCannotStart) {
  std::string errors;
  const auto command = WorkerCommand("none");
  EXPECT_EQ(ExitStatus(command, {}, &errors), 2);
  EXPECT_THAT(errors, HasSubstr("--allocator or --no-publish is required"));
  EXPECT_EQ(ExitStatus(command, {"--no-publish", "--bogus"}, &errors), 2);
  EXPECT_THAT(errors, HasSubstr("--bogus"));
  EXPECT_EQ(ExitStatus(command, {"--no-publish", "--engine", "'a"}, &errors),
            2);
  EXPECT_EQ(ExitStatus({Program("ratequant-worker")},
                       {"--no-publish", "--model-root", dir_ / "absent",
                        "--spool-dir", dir_ / "spool"},
                       &errors),
            2);
  EXPECT_THAT(errors, HasSubstr("absent' is not a folder"));
  for (const char* limit : {"0", "-1GiB", "4 apples", ""}) {
    EXPECT_EQ(
        ExitStatus(command, {"--no-publish", "--memory-limit", limit}, &errors),
        2);
    EXPECT_THAT(errors, HasSubstr("--memory-limit")) << limit;
  }
}

TEST_F(WorkerProcessTest, RefusesADeviceThatIsNotThere) {
  std::string errors;
  const auto command = WorkerCommand("none");
  EXPECT_EQ(
      ExitStatus(command, {"--no-publish", "--device", "cuda:4096"}, &errors),
      2);
  EXPECT_THAT(errors, HasSubstr("there is no CUDA device"));
  for (const char* device : {"gpu", "cuda:", "cuda:-1", "cuda:x", ""}) {
    EXPECT_EQ(
        ExitStatus(command, {"--no-publish", "--device", device}, &errors), 2);
    EXPECT_THAT(errors, HasSubstr("use cpu, cuda or cuda:N")) << device;
  }
}

TEST_F(WorkerProcessTest, RefusesAPortAndASpoolThatAreInUse) {
  auto command = WorkerCommand("none");
  command.push_back("--no-publish");
  auto worker = StartProgram(command);
  const std::string address = AddressIn("worker.port");
  std::string errors;
  EXPECT_EQ(ExitStatus(command, {}, &errors), 4);
  EXPECT_THAT(errors, HasSubstr("in use by another worker"));
  EXPECT_EQ(ExitStatus({Program("ratequant-worker")},
                       {"--no-publish", "--model-root", dir_ / "models",
                        "--spool-dir", dir_ / "other", "--address", address},
                       &errors),
            3);
  EXPECT_THAT(errors, HasSubstr(address));
}

TEST_F(WorkerProcessTest, PublishesToTheAllocator) {
  std::unique_ptr<EngineProcess> allocator;
  if (!StartAllocator(allocator)) GTEST_SKIP() << "no ratequant-allocator";
  auto command = WorkerCommand("none");
  command.insert(command.end(), {"--allocator", AddressIn("allocator.port")});
  auto worker = StartProgram(command);
  const v1::CalibrateProgress last = Calibrate();
  ASSERT_TRUE(last.published());
  v1::Calibration calibration;
  const absl::Status got = GetLatest(&calibration);
  ASSERT_TRUE(got.ok()) << got;
  EXPECT_EQ(calibration.name(), last.calibration());
  EXPECT_TRUE(calibration.has_create_time());
}

TEST_F(WorkerProcessTest, PublishesWhatAKilledWorkerLeftOnDisk) {
  std::unique_ptr<EngineProcess> allocator;
  if (!StartAllocator(allocator)) GTEST_SKIP() << "no ratequant-allocator";
  auto command = WorkerCommand("none");
  command.push_back("--no-publish");
  auto worker = StartProgram(command);
  const v1::CalibrateProgress last = Calibrate();
  ASSERT_FALSE(last.calibration().empty());
  ASSERT_FALSE(last.published());
  worker->Kill();

  command.back() = "--allocator";
  command.push_back(AddressIn("allocator.port"));
  worker = StartProgram(command);
  v1::Calibration calibration;
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (!GetLatest(&calibration).ok() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(calibration.name(), last.calibration());
}

}  // namespace
}  // namespace ratequant::calibration
