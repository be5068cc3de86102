#ifndef RATEQUANT_SERVICES_COMMON_CALL_COUNTER_H_
#define RATEQUANT_SERVICES_COMMON_CALL_COUNTER_H_

#include <atomic>
#include <memory>

#include "grpcpp/support/server_interceptor.h"

namespace ratequant {

// Counts the calls a server is handling, without those of gRPC's own services
// (health watches last as long as their clients). Thread-safe.
class CallCounter
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallCounter() : active_(std::make_shared<std::atomic<int>>(0)) {}

  // Calls between their start and the end of their context; outlives the
  // counter, which belongs to the server.
  std::shared_ptr<const std::atomic<int>> active() const { return active_; }

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  std::shared_ptr<std::atomic<int>> active_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CALL_COUNTER_H_
