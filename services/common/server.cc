#include "services/common/server.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "services/common/call_counter.h"
#include "services/common/listen_address.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

// How long no call must have run before idle connections are closed.
constexpr std::chrono::milliseconds kIdleStep(20);
constexpr int kIdleSteps = 8;

absl::StatusOr<ListenAddress> CheckedAddress(const ServerOptions& options) {
  absl::StatusOr<ListenAddress> address = ParseListenAddress(options.address);
  if (!address.ok()) return address;
  if (!address->loopback && !options.insecure) {
    return MakeError(
        absl::StatusCode::kPermissionDenied, "INSECURE_ADDRESS",
        absl::StrCat("refusing to listen on ", options.address,
                     ": it isn't loopback, and calls are neither "
                     "encrypted nor authenticated; pass --insecure "
                     "to allow it"),
        {{"address", options.address}});
  }
  return address;
}

absl::Status WritePortFile(const std::string& path, int port) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  std::ofstream out(temporary, std::ios::trunc);
  out << port << "\n";
  out.close();
  if (out.fail() || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary.c_str());
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "PORT_FILE_UNWRITABLE",
                     absl::StrCat("cannot write the port file ", path, ": ",
                                  std::strerror(error)),
                     {{"path", path}});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const ServerOptions& options, const std::vector<NamedService>& services) {
  absl::StatusOr<ListenAddress> address = CheckedAddress(options);
  if (!address.ok()) return address.status();
  // gRPC reports only that it failed; the probe says why.
  absl::Status free = ProbeListenAddress(*address);
  if (!free.ok()) return free;

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  // With SO_REUSEPORT a second server on the same port starts and steals calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  auto server = std::unique_ptr<Server>(new Server());
  builder.AddListeningPort(address->ToString(),
                           grpc::InsecureServerCredentials(), &server->port_);
  for (const NamedService& service : services) {
    builder.RegisterService(service.service);
    server->names_.push_back(service.name);
  }
  auto counter = std::make_unique<CallCounter>();
  server->active_calls_ = counter->active();
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(std::move(counter));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) {
    absl::Status why = ProbeListenAddress(*address);
    if (!why.ok()) return why;
    return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_UNAVAILABLE",
                     absl::StrCat("cannot listen on ", address->ToString()),
                     {{"address", address->ToString()}});
  }
  address->port = server->port_;
  server->address_ = address->ToString();
  server->SetServing(true);
  if (!options.port_file.empty()) {
    absl::Status written = WritePortFile(options.port_file, server->port_);
    if (!written.ok()) return written;
    server->port_file_ = options.port_file;
  }
  return server;
}

Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }

void Server::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const std::string& name : names_) {
    health->SetServingStatus(name, serving);
  }
  health->SetServingStatus(serving);
}

void Server::Shutdown(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;
  SetServing(false);
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
  if (!port_file_.empty()) std::remove(port_file_.c_str());
  port_file_.clear();
}

}  // namespace ratequant
