#include "services/common/call_counter.h"

#include <utility>

#include "absl/strings/match.h"

namespace ratequant {
namespace {

class Counted : public grpc::experimental::Interceptor {
 public:
  explicit Counted(std::shared_ptr<std::atomic<int>> active)
      : active_(std::move(active)) {
    ++*active_;
  }
  ~Counted() override { --*active_; }

  void Intercept(
      grpc::experimental::InterceptorBatchMethods* methods) override {
    methods->Proceed();
  }

 private:
  const std::shared_ptr<std::atomic<int>> active_;
};

}  // namespace

grpc::experimental::Interceptor* CallCounter::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  if (absl::StartsWith(info->method(), "/grpc.")) return nullptr;
  return new Counted(active_);
}

}  // namespace ratequant
