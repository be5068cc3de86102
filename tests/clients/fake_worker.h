#ifndef RATEQUANT_TESTS_CLIENTS_FAKE_WORKER_H_
#define RATEQUANT_TESTS_CLIENTS_FAKE_WORKER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/server.h"
#include "ratequant/v1/calibration_service.grpc.pb.h"

namespace ratequant::testing {

// A CalibrationService on a real port whose answers a test chooses: what the
// command shows must not depend on how fast a model runs.
class FakeWorker : public v1::CalibrationService::Service {
 public:
  FakeWorker();
  ~FakeWorker() override;

  std::string endpoint() const;

  // Set before the call.
  std::vector<v1::CalibrateProgress> messages;
  grpc::Status status;
  // After the messages, waits until the call is cancelled.
  bool wait_for_cancel = false;

  // The last request, once a call came.
  std::optional<v1::CalibrateModelRequest> request();

  // Notified when the messages are written, and when a waiting call was
  // cancelled.
  absl::Notification written;
  absl::Notification cancelled;

  grpc::Status CalibrateModel(
      grpc::ServerContext* context, const v1::CalibrateModelRequest* request,
      grpc::ServerWriter<v1::CalibrateProgress>* writer) override;

 private:
  absl::Mutex mutex_;
  std::optional<v1::CalibrateModelRequest> request_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_CLIENTS_FAKE_WORKER_H_
