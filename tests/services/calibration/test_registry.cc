#include "tests/services/calibration/test_registry.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/status.h"

namespace ratequant::calibration {

TestRegistry::TestRegistry() {
  Up();
  Down();
}

TestRegistry::~TestRegistry() { Down(); }

std::string TestRegistry::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

void TestRegistry::Up() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(64 << 20);
  builder.AddListeningPort(address(), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) abort();
  port_ = port;
}

void TestRegistry::Down() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

void TestRegistry::Answer(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  answer_ = status;
  hang_ = false;
}

void TestRegistry::Hang() {
  std::lock_guard<std::mutex> lock(mutex_);
  hang_ = true;
}

int TestRegistry::calls() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return calls_;
}

bool TestRegistry::Has(const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stored_.count(name) > 0;
}

v1::Calibration TestRegistry::Get(const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = stored_.find(name);
  return it == stored_.end() ? v1::Calibration() : it->second;
}

bool TestRegistry::WaitFor(const std::string& name, absl::Duration time) const {
  const absl::Time deadline = absl::Now() + time;
  while (!Has(name) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  return Has(name);
}

grpc::Status TestRegistry::CreateCalibration(
    grpc::ServerContext* context, const v1::CreateCalibrationRequest* request,
    v1::Calibration* response) {
  std::unique_lock<std::mutex> lock(mutex_);
  ++calls_;
  while (hang_ && !context->IsCancelled()) {
    lock.unlock();
    absl::SleepFor(absl::Milliseconds(10));
    lock.lock();
  }
  if (!answer_.ok()) return ToGrpcStatus(answer_);
  const std::string& name = request->calibration().name();
  if (name.rfind(request->parent() + "/calibrations/", 0) != 0) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "wrong parent");
  }
  stored_[name] = request->calibration();
  *response = request->calibration();
  return grpc::Status::OK;
}

}  // namespace ratequant::calibration
