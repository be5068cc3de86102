#ifndef RATEQUANT_TESTS_BENCH_RPC_LOAD_H_
#define RATEQUANT_TESTS_BENCH_RPC_LOAD_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"

namespace ratequant::bench {

// What a run of calls took.
struct Load {
  double seconds = 0;             // from the first call to the last answer
  std::vector<double> latencies;  // seconds, of calls that succeeded
  int failures = 0;
  size_t answer_bytes = 0;  // of the last answer

  double rate() const {
    return static_cast<double>(latencies.size()) / seconds;
  }
};

// Calls unary methods as fast as a number of calls in flight allows. Answers
// aren't parsed, so that methods cost the client the same. Thread-safe.
class RpcLoad {
 public:
  explicit RpcLoad(const std::string& address);

  // Calls `method` ("/package.Service/Method") `calls` times, the i-th with
  // `request(i)`, which is called on several threads.
  Load Run(const std::string& method,
           const std::function<grpc::ByteBuffer(int)>& request, int calls,
           int in_flight);

 private:
  struct Running;

  void Start(const std::shared_ptr<Running>& running);

  grpc::GenericStub stub_;
};

// A request's bytes.
grpc::ByteBuffer ToBytes(const google::protobuf::Message& message);

}  // namespace ratequant::bench

#endif  // RATEQUANT_TESTS_BENCH_RPC_LOAD_H_
