#include "tests/services/calibration/worker_fixture.h"

#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "services/common/status.h"
#include "tests/services/calibration/process_state.h"

namespace ratequant::calibration {

std::unique_ptr<v1::CalibrationService::Stub> ConnectTo(
    const std::string& address) {
  grpc::ChannelArguments arguments;
  // No connection is shared with another test.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::CalibrationService::NewStub(grpc::CreateCustomChannel(
      address, grpc::InsecureChannelCredentials(), arguments));
}

std::vector<std::string> FakeEngineCommand(const TempDir& dir,
                                           const std::string& fault,
                                           const std::string& geometry) {
  return {"/usr/bin/python3",
          std::filesystem::absolute("tests/services/calibration/fake_engine.py")
              .string(),
          "--geometry",
          geometry,
          "--tensors",
          dir / "tensors",
          "--fault",
          fault,
          "--pid-file",
          dir / "engine.pid"};
}

WorkerFixture::WorkerFixture() : pipes_(OpenPipes()) {
  capture_.WriteTo(dir_ / "tensors");
  std::filesystem::create_directories(dir_ / "models/tiny");
  registry_.Up();
  options_.server.address = "127.0.0.1:0";
  options_.server.max_message_bytes = 68 << 20;
  options_.model_root = dir_ / "models";
  options_.allocator.address = registry_.address();
  options_.spool_dir = dir_ / "spool";
  options_.threads = 2;
  options_.engine.timeout = absl::Seconds(30);
  options_.publisher.first_backoff = absl::Milliseconds(10);
  options_.publisher.first_spool_backoff = absl::Milliseconds(50);
}

WorkerFixture::~WorkerFixture() {
  StopWorker();
  EXPECT_EQ(OpenMemoryFiles(), 0);
  EXPECT_EQ(OpenPipes(), pipes_);
  int pid = 0;
  if (std::ifstream(dir_ / "engine.pid") >> pid) {
    EXPECT_TRUE(IsGone(pid)) << "the engine outlived the worker";
  }
}

void WorkerFixture::Start(const std::string& fault,
                          const std::string& geometry) {
  StopWorker();
  options_.engine.command = FakeEngineCommand(dir_, fault, geometry);
  auto worker = Worker::Start(options_);
  ASSERT_TRUE(worker.ok()) << worker.status();
  worker_ = *std::move(worker);
  stub_ = ConnectTo(worker_->address());
}

void WorkerFixture::StopWorker() {
  stub_.reset();
  worker_.reset();
}

v1::CalibrateModelRequest WorkerFixture::Request() const {
  v1::CalibrateModelRequest request;
  request.set_model("models/tiny");
  request.set_model_path("tiny");
  request.set_text("Some text.");
  *request.mutable_options() = TestCapture::Options();
  return request;
}

CallResult WorkerFixture::CalibrateModel(
    const v1::CalibrateModelRequest& request) {
  grpc::ClientContext context;
  auto stream = stub_->CalibrateModel(&context, request);
  return Finish(*stream);
}

CallResult WorkerFixture::CalibrateStream(
    const std::vector<v1::CalibrateChunk>& chunks) {
  grpc::ClientContext context;
  auto stream = stub_->CalibrateStream(&context);
  std::thread writer([&]() {
    for (const v1::CalibrateChunk& chunk : chunks) {
      if (!stream->Write(chunk)) return;
    }
    stream->WritesDone();
  });
  CallResult result;
  v1::CalibrateProgress progress;
  while (stream->Read(&progress)) result.progress.push_back(progress);
  writer.join();
  result.status = StatusOf(stream->Finish());
  return result;
}

pid_t WorkerFixture::EnginePid() {
  return WaitForNumber(dir_ / "engine.pid", absl::Seconds(30));
}

absl::Status StatusOf(const grpc::Status& status) {
  return FromGrpcStatus(status);
}

}  // namespace ratequant::calibration
