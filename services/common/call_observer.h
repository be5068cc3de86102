#ifndef RATEQUANT_SERVICES_COMMON_CALL_OBSERVER_H_
#define RATEQUANT_SERVICES_COMMON_CALL_OBSERVER_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/support/server_interceptor.h"

namespace ratequant {

// Sees every call of a server, without those of gRPC's own services (health
// watches last as long as their clients):
// - counts those that run;
// - metrics, named as gRPC's OpenTelemetry plugin names them:
//   grpc_server_call_started_total and grpc_server_call_duration_seconds, with
//   grpc_method ("package.Service/Method", "other" for one not registered) and
//   grpc_status;
// - gives it a request id unless its client did, and its own span in the
//   client's trace (trace.h: CallIdsOf); the id goes back with an error;
// - logs its end: failures of the server as errors or warnings, of the client
//   and changes as info, the rest for debugging.
//
// Thread-safe.
class CallObserver
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // `services`: full names of the server's services.
  explicit CallObserver(const std::vector<std::string>& services);
  ~CallObserver() override;

  // Calls between their start and the end of their context; outlives the
  // observer, which belongs to the server.
  std::shared_ptr<const std::atomic<int>> active() const { return active_; }

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  struct Methods;

  const std::shared_ptr<std::atomic<int>> active_;
  const std::unique_ptr<Methods> methods_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CALL_OBSERVER_H_
