#include "tests/clients/fake_worker.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"

namespace ratequant::testing {

FakeWorker::FakeWorker() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

FakeWorker::~FakeWorker() { server_->Shutdown(); }

std::string FakeWorker::endpoint() const {
  return absl::StrCat("127.0.0.1:", port_);
}

std::optional<v1::CalibrateModelRequest> FakeWorker::request() {
  absl::MutexLock lock(&mutex_);
  return request_;
}

grpc::Status FakeWorker::CalibrateModel(
    grpc::ServerContext* context, const v1::CalibrateModelRequest* request,
    grpc::ServerWriter<v1::CalibrateProgress>* writer) {
  {
    absl::MutexLock lock(&mutex_);
    request_ = *request;
  }
  for (const v1::CalibrateProgress& message : messages) writer->Write(message);
  if (!written.HasBeenNotified()) written.Notify();
  if (!wait_for_cancel) return status;
  while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
  cancelled.Notify();
  return grpc::Status::CANCELLED;
}

}  // namespace ratequant::testing
