#ifndef RATEQUANT_TESTS_SERVICES_CALIBRATION_WORKER_FIXTURE_H_
#define RATEQUANT_TESTS_SERVICES_CALIBRATION_WORKER_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "ratequant/v1/calibration_service.grpc.pb.h"
#include "services/calibration/worker.h"
#include "tests/services/calibration/test_capture.h"
#include "tests/services/calibration/test_registry.h"

namespace ratequant::calibration {

// How a call ended: every progress and the status, with its details.
struct CallResult {
  std::vector<v1::CalibrateProgress> progress;
  absl::Status status;

  // The last message; the caller has checked that the call succeeded.
  const v1::CalibrateProgress& done() const { return progress.back(); }
};

std::unique_ptr<v1::CalibrationService::Stub> ConnectTo(
    const std::string& address);

// The command of fake_engine.py for TestCapture's tensors.
std::vector<std::string> FakeEngineCommand(
    const TempDir& dir, const std::string& fault,
    const std::string& geometry = "3,2,4,32");

// A worker in this process, on a TCP port, with the fake engine and a registry.
class WorkerFixture : public testing::Test {
 protected:
  WorkerFixture();
  // Nothing of a capture may be left, whatever the test did.
  ~WorkerFixture() override;

  // Starts the worker (again).
  void Start(const std::string& fault = "none",
             const std::string& geometry = "3,2,4,32");
  void StopWorker();

  v1::CalibrateModelRequest Request() const;
  CallResult CalibrateModel(const v1::CalibrateModelRequest& request);
  CallResult CalibrateModel() { return CalibrateModel(Request()); }
  CallResult CalibrateStream(const std::vector<v1::CalibrateChunk>& chunks);

  // Reads a server-streaming call to its end.
  template <typename Stream>
  static CallResult Finish(Stream& stream);

  // The engine's process number, once it has started.
  pid_t EnginePid();

  TestCapture capture_;
  TempDir dir_;
  TestRegistry registry_;
  WorkerOptions options_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<v1::CalibrationService::Stub> stub_;
  const int pipes_;
};

absl::Status StatusOf(const grpc::Status& status);

template <typename Stream>
CallResult WorkerFixture::Finish(Stream& stream) {
  CallResult result;
  v1::CalibrateProgress progress;
  while (stream.Read(&progress)) result.progress.push_back(progress);
  result.status = StatusOf(stream.Finish());
  return result;
}

}  // namespace ratequant::calibration

#endif  // RATEQUANT_TESTS_SERVICES_CALIBRATION_WORKER_FIXTURE_H_
