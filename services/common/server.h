#ifndef RATEQUANT_SERVICES_COMMON_SERVER_H_
#define RATEQUANT_SERVICES_COMMON_SERVER_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server.h"
#include "services/common/connection_listener.h"
#include "services/common/tls.h"

namespace ratequant {

// Where and how a server listens.
struct ServerOptions {
  // "IPv4:port", "[IPv6]:port" or "localhost:port"; port 0 lets the system
  // choose.
  std::string address = "127.0.0.1:0";

  // Encrypts, when not empty. With a CA clients show a certificate, which they
  // may leave out with kOptional.
  TlsFiles tls;
  ClientCertificate client_certificate = ClientCertificate::kRequired;

  // The services refuse whom their access policy doesn't name.
  bool authorized = false;

  // Allows an address that isn't loopback without encryption or without
  // authorization.
  bool insecure = false;

  // Where health is answered in plaintext too, and but for reflection nothing
  // else, for probes that can't do TLS. Any IP:port; empty: nowhere.
  std::string health_address;

  // When not empty, the port is written here ("50061\n"), by rename, once the
  // server accepts calls. Removed by Shutdown.
  std::string port_file;

  // Largest message taken and sent.
  int max_message_bytes = 64 << 20;

  // Calls that run at once on one connection; more wait at the client.
  int max_streams = 10'000;

  // Connections at once; one more is closed at once, and tries again.
  ConnectionLimits connections;

  // Answers grpc.channelz.v1 too, which shows connections and their peers to
  // everyone who can connect.
  bool channelz = false;

  // Memory of all connections' buffers together.
  size_t max_buffer_bytes = size_t{1} << 30;
};

// One gRPC service and its full name, for health: take it from
// `v1::RegistryService::service_full_name()`.
struct NamedService {
  grpc::Service* service = nullptr;
  std::string name;
};

// A running gRPC server with health checking (grpc.health.v1: one status for
// the whole server and one for each service), reflection. Its
// calls are observed (call_observer.h).
//
// Thread-safe. The services must outlive it.
class Server {
 public:
  // Starts and answers SERVING. INVALID_ARGUMENT for a bad address, or
  // (INVALID_TLS_FILES) bad files; PERMISSION_DENIED (INSECURE_ADDRESS) for one
  // that isn't loopback without TLS and authorization or `insecure`;
  // UNAVAILABLE (ADDRESS_UNAVAILABLE) when it can't be listened on, for example
  // because the port is in use; an error when the port file can't be written.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerOptions& options, const std::vector<NamedService>& services);

  // Shuts down at once when Shutdown has not been called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // The port it listens on.
  int port() const { return listener_->port(); }

  // The port of `health_address`; 0 without.
  int health_port() const {
    return health_listener_ == nullptr ? 0 : health_listener_->port();
  }

  // "host:port" with the real port.
  const std::string& address() const { return address_; }

  // Sets what health checks see, for the server and every service.
  void SetServing(bool serving);
  bool serving() const { return serving_; }

  // Sets what health checks see under another name, for example of something
  // the server depends on.
  void SetHealth(const std::string& name, bool serving);

  // Answers NOT_SERVING and still takes calls for `delay`.
  void Drain(std::chrono::milliseconds delay);

  // Answers NOT_SERVING and takes no new calls, lets running calls finish for
  // `grace`, cancels the rest and returns when none runs. Doesn't wait for idle
  // connections or health watches. May be called again.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  Server() = default;

  absl::Status StartHealth(const std::string& address);

  // Outlive the servers that they hand connections to.
  std::unique_ptr<ConnectionListener> listener_, health_listener_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::Server> health_;  // null without health_address
  std::atomic<bool> serving_ = false;
  std::shared_ptr<const std::atomic<int>> active_calls_;
  std::vector<std::string> names_;
  std::string address_;
  std::string port_file_;
  std::shared_ptr<void> samples_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_SERVER_H_
