#ifndef RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_REGISTRY_H_
#define RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_REGISTRY_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"

namespace ratequant::calibration {

// A registry on a TCP port of its own that keeps calibrations in memory and can
// be told to fail, to hang, to go down and to come back.
class TestRegistry final : public v1::RegistryService::Service {
 public:
  // Picks a port; doesn't listen yet.
  TestRegistry();
  ~TestRegistry() override;

  std::string address() const;
  void Up();
  void Down();

  // What CreateCalibration answers from now on; OK stores.
  void Answer(const absl::Status& status);
  // Makes CreateCalibration wait for its caller to give up.
  void Hang();

  int calls() const;
  bool Has(const std::string& name) const;
  v1::Calibration Get(const std::string& name) const;
  // Waits until `name` is stored.
  bool WaitFor(const std::string& name, absl::Duration time) const;

 private:
  grpc::Status CreateCalibration(grpc::ServerContext* context,
                                 const v1::CreateCalibrationRequest* request,
                                 v1::Calibration* response) override;

  int port_ = 0;
  mutable std::mutex mutex_;
  absl::Status answer_;
  bool hang_ = false;
  int calls_ = 0;
  std::map<std::string, v1::Calibration> stored_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_REGISTRY_H_
