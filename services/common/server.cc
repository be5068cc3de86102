#include "services/common/server.h"

#include <cstdio>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/call_observer.h"
#include "services/common/listen_address.h"
#include "services/common/metrics.h"
#include "services/common/port_file.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

// How long no call must have run before idle connections are closed.
constexpr std::chrono::milliseconds kIdleStep(20);
constexpr int kIdleSteps = 8;

// Pings that a client may send while it has no call: more often is abuse, and
// its connection is closed (GOAWAY, too_many_pings).
constexpr int kShortestPingMs = 60'000;

// A connection whose other end is gone without a word is found out.
constexpr int kKeepaliveMs = 120'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

// Connections without calls, of clients that come back, are closed.
constexpr int kLongestIdleMs = 30 * 60'000;

// A connection that says nothing, or not enough, doesn't keep its place.
constexpr int kHandshakeMs = 20'000;

constexpr int kMaxMetadataBytes = 16 << 10;

// Of probes: a few from the node.
constexpr int kHealthConnections = 64;

// What an address that others can reach lacks; empty when nothing.
std::string Lacking(const ServerOptions& options) {
  if (options.tls.empty()) {
    return "calls are not encrypted; give --tls-cert and --tls-key";
  }
  if (!options.authorized) {
    return "calls are not authorized; give --auth-policy";
  }
  return "";
}

absl::StatusOr<ListenAddress> CheckedAddress(const ServerOptions& options) {
  absl::StatusOr<ListenAddress> address = ParseListenAddress(options.address);
  if (!address.ok() || address->loopback || options.insecure) return address;
  const std::string lacking = Lacking(options);
  if (lacking.empty()) return address;
  return MakeError(absl::StatusCode::kPermissionDenied, "INSECURE_ADDRESS",
                   absl::StrCat("refusing to listen on ", options.address,
                                ": it isn't loopback, and ", lacking,
                                ", or pass --insecure to allow it"),
                   {{"address", options.address}});
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> CredentialsFor(
    const ServerOptions& options) {
  if (options.tls.empty()) return grpc::InsecureServerCredentials();
  return TlsServerCredentials(options.tls, options.client_certificate);
}

void SetLimits(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  builder->SetResourceQuota(
      grpc::ResourceQuota("server").Resize(options.max_buffer_bytes));
  const std::pair<const char*, int> arguments[] = {
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams},
      {GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes},
      {GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kShortestPingMs},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, kLongestIdleMs},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs},
  };
  for (const auto& [name, value] : arguments) {
    builder->AddChannelArgument(name, value);
  }
}

// Builds and starts a server with the listener's connections.
absl::StatusOr<std::unique_ptr<grpc::Server>> StartWith(
    std::shared_ptr<grpc::ServerCredentials> credentials,
    grpc::ServerBuilder* builder, ConnectionListener* listener) {
  auto acceptor = builder->experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      std::move(credentials));
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  // gRPC says in the log why.
  if (server == nullptr) {
    return MakeError(absl::StatusCode::kInternal, "SERVER_NOT_STARTED",
                     "gRPC didn't start the server");
  }
  listener->Start(std::move(acceptor));
  return server;
}

void SampleConnections(const ConnectionListener& listener, MetricSamples* out) {
  const ConnectionListener::Counts counts = listener.counts();
  out->Gauge("ratequant_connections", "Connections that are open", counts.open);
  out->Gauge("ratequant_connections_capacity", "Most that may be",
             listener.limits().total);
  for (const auto& [limit, count] : {std::pair("total", counts.refused_total),
                                     std::pair("host", counts.refused_host)}) {
    out->Counter("ratequant_connections_refused_total",
                 "Connections that were closed because of a limit",
                 static_cast<double>(count), {{"limit", limit}});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const ServerOptions& options, const std::vector<NamedService>& services) {
  absl::StatusOr<ListenAddress> address = CheckedAddress(options);
  if (!address.ok()) return address.status();
  const auto credentials = CredentialsFor(options);
  if (!credentials.ok()) {
    return Annotate(credentials.status(),
                    "--tls-cert, --tls-key or --tls-client-ca");
  }
  auto listener = ConnectionListener::Listen(*address, options.connections);
  if (!listener.ok()) return listener.status();

  auto server = std::unique_ptr<Server>(new Server());
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // What is initialized is part of every server that starts later: health's
  // has no channelz.
  if (!options.health_address.empty()) {
    absl::Status health = server->StartHealth(options.health_address);
    if (!health.ok()) return health;
  }
  if (options.channelz) grpc::channelz::experimental::InitChannelzService();
  grpc::ServerBuilder builder;
  SetLimits(options, &builder);
  server->listener_ = *std::move(listener);
  for (const NamedService& service : services) {
    builder.RegisterService(service.service);
    server->names_.push_back(service.name);
  }
  auto observer = std::make_unique<CallObserver>(server->names_);
  server->active_calls_ = observer->active();
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(std::move(observer));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  auto started = StartWith(*credentials, &builder, server->listener_.get());
  if (!started.ok()) return started.status();
  server->server_ = *std::move(started);
  address->port = server->port();
  server->address_ = address->ToString();
  server->SetServing(true);
  server->samples_ = Metrics::Get().Sample(
      [server = server.get(), tls = options.tls](auto* out) {
        out->Gauge("ratequant_active_calls", "Calls that run",
                   *server->active_calls_);
        SampleConnections(*server->listener_, out);
        for (const auto& [name, path] : {std::pair("server", tls.certificate),
                                         std::pair("client-ca", tls.ca)}) {
          if (!path.empty()) SampleCertificate(name, path, out);
        }
      });
  if (!options.port_file.empty()) {
    absl::Status written = WritePortFile(options.port_file, server->port());
    if (!written.ok()) return written;
    server->port_file_ = options.port_file;
  }
  return server;
}

Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }

absl::Status Server::StartHealth(const std::string& text) {
  const absl::StatusOr<ListenAddress> address = ParseListenAddress(text);
  if (!address.ok()) return Annotate(address.status(), "--health-address");
  ServerOptions small;
  small.max_message_bytes = 1 << 10;
  small.max_streams = 16;
  small.connections = {.total = kHealthConnections,
                       .per_host = kHealthConnections};
  auto listener = ConnectionListener::Listen(*address, small.connections);
  if (!listener.ok()) return listener.status();
  health_listener_ = *std::move(listener);
  grpc::ServerBuilder builder;
  SetLimits(small, &builder);
  auto started = StartWith(grpc::InsecureServerCredentials(), &builder,
                           health_listener_.get());
  if (!started.ok()) return started.status();
  health_ = *std::move(started);
  SetServing(false);
  return absl::OkStatus();
}

void Server::SetServing(bool serving) {
  serving_ = serving;
  for (grpc::Server* server : {server_.get(), health_.get()}) {
    if (server == nullptr) continue;
    grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
    for (const std::string& name : names_) {
      health->SetServingStatus(name, serving);
    }
    health->SetServingStatus(serving);
  }
}

void Server::SetHealth(const std::string& name, bool serving) {
  for (grpc::Server* server : {server_.get(), health_.get()}) {
    if (server == nullptr) continue;
    server->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

void Server::Drain(std::chrono::milliseconds delay) {
  SetServing(false);
  std::this_thread::sleep_for(delay);
}

void Server::Shutdown(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;
  SetServing(false);
  listener_->Stop();
  // gRPC's own shutdown also waits for connections, and a client that isn't
  // calling looks at its connection only every five seconds: once no call has
  // run for a moment, they are closed.
  auto drained = std::async(std::launch::async, [this, grace] {
    server_->Shutdown(std::chrono::system_clock::now() + grace);
  });
  for (int idle = 0;
       drained.wait_for(kIdleStep) != std::future_status::ready;) {
    idle = *active_calls_ == 0 ? idle + 1 : 0;
    if (idle >= kIdleSteps) grpc_server_cancel_all_calls(server_->c_server());
  }
  drained.get();
  server_->Wait();
  if (health_ != nullptr) {
    health_listener_->Stop();
    health_->Shutdown(std::chrono::system_clock::now());
  }
  if (!port_file_.empty()) std::remove(port_file_.c_str());
  port_file_.clear();
}

}  // namespace ratequant
