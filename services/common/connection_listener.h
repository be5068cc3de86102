#ifndef RATEQUANT_SERVICES_COMMON_CONNECTION_LISTENER_H_
#define RATEQUANT_SERVICES_COMMON_CONNECTION_LISTENER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "grpcpp/server_builder.h"
#include "services/common/listen_address.h"

namespace ratequant {

// Connections that a server holds at once; at least 1 each.
struct ConnectionLimits {
  int total = 8192;
  int per_host = 1024;  // of one IP address
};

// Takes connections and hands them to a gRPC server, which itself can't bound
// them. One beyond a limit is closed before a byte of it is read: its client
// sees UNAVAILABLE. Thread-safe.
//
// A connection takes two of the process's file descriptors, one of them to see
// when gRPC is done with it.
class ConnectionListener {
 public:
  // Binds and listens; connections wait until Start. The limit of open files is
  // raised as far as needed and allowed; where that isn't enough, `total` is
  // what leaves kSpareDescriptors to everything else. UNAVAILABLE
  // (ADDRESS_UNAVAILABLE).
  static absl::StatusOr<std::unique_ptr<ConnectionListener>> Listen(
      const ListenAddress& address, const ConnectionLimits& limits);

  static constexpr int kSpareDescriptors = 1024;

  // Stops; what gRPC still holds stays open.
  ~ConnectionListener();
  ConnectionListener(const ConnectionListener&) = delete;
  ConnectionListener& operator=(const ConnectionListener&) = delete;

  // Hands over connections from now on, to a server that has started. Once.
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;
  void Start(std::unique_ptr<Acceptor> acceptor);

  // Takes no more connections. Returns when none is being handed over.
  void Stop();

  int port() const { return port_; }

  // What is in force.
  const ConnectionLimits& limits() const { return limits_; }

  struct Counts {
    int open = 0;
    int64_t refused_total = 0, refused_host = 0;  // by limit
  };
  Counts counts() const;

 private:
  ConnectionListener(int listener, int port, const ConnectionLimits& limits);

  void Run();
  bool Accept();
  bool Admit(const std::string& host);
  void Closed(int watch);

  const ConnectionLimits limits_;
  const int port_;
  int listener_;           // -1 once stopped
  const int poll_, wake_;  // an epoll, and an eventfd in it
  std::unique_ptr<Acceptor> acceptor_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool stopping_ = false;
  Counts counts_;
  std::map<std::string, int> by_host_;
  std::unordered_map<int, std::string> host_of_;  // by duplicated descriptor
  std::chrono::steady_clock::time_point told_;    // of refusals, in the log
  std::thread thread_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CONNECTION_LISTENER_H_
