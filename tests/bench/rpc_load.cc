#include "tests/bench/rpc_load.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace ratequant::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Call {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer answer;
  Clock::time_point start;
};

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

struct RpcLoad::Running {
  std::string method;
  std::function<grpc::ByteBuffer(int)> request;
  int calls = 0;

  std::mutex mutex;
  std::condition_variable finished;
  int started = 0;  // this and the following guarded by mutex
  int done = 0;
  Load load;
};

RpcLoad::RpcLoad(const std::string& address)
    : stub_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {}

Load RpcLoad::Run(const std::string& method,
                  const std::function<grpc::ByteBuffer(int)>& request,
                  int calls, int in_flight) {
  auto running = std::make_shared<Running>();
  running->method = method;
  running->request = request;
  running->calls = calls;
  running->load.latencies.reserve(calls);
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < in_flight; ++i) Start(running);
  std::unique_lock<std::mutex> lock(running->mutex);
  running->finished.wait(lock, [&] { return running->done == calls; });
  running->load.seconds = SecondsSince(start);
  return std::move(running->load);
}

void RpcLoad::Start(const std::shared_ptr<Running>& running) {
  int index = 0;
  {
    std::lock_guard<std::mutex> lock(running->mutex);
    if (running->started == running->calls) return;
    index = running->started++;
  }
  auto call = std::make_shared<Call>();
  call->request = running->request(index);
  call->start = Clock::now();
  stub_.UnaryCall(&call->context, running->method, {}, &call->request,
                  &call->answer,
                  [this, running, call](const grpc::Status& status) mutable {
                    const double seconds = SecondsSince(call->start);
                    const size_t bytes = call->answer.Length();
                    // The call holds its channel. The last one of a channel
                    // must not end on this thread, which gRPC would join then;
                    // Run returns, and the stub ends, after this.
                    call.reset();
                    bool last = false;
                    {
                      std::lock_guard<std::mutex> lock(running->mutex);
                      Load& load = running->load;
                      if (status.ok()) {
                        load.latencies.push_back(seconds);
                        load.answer_bytes = bytes;
                      } else {
                        ++load.failures;
                      }
                      last = ++running->done == running->calls;
                      if (last) running->finished.notify_all();
                    }
                    if (!last) Start(running);
                  });
}

grpc::ByteBuffer ToBytes(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace ratequant::bench
