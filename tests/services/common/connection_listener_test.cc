// Real servers, and sockets that only connect.
#include "services/common/connection_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "services/common/metrics.h"
#include "services/common/server.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using namespace std::chrono_literals;  // NOLINT

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

// A connection that says nothing.
class Socket {
 public:
  explicit Socket(int port, const char* from = "127.0.0.1")
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval patience = {.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, from, &address.sin_addr);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
              0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(static_cast<uint16_t>(port));
    EXPECT_EQ(
        connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
        0);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }

  // Whether the server closed it; waits until it did or sent something, which
  // gRPC does at once when it has the connection.
  bool Refused() const {
    char byte = 0;
    return recv(fd_, &byte, 1, MSG_PEEK) <= 0;
  }

 private:
  int fd_;
};

bool Shows(const std::string& sample) {
  return Metrics::Get().Text().find("\n" + sample + "\n") != std::string::npos;
}

std::unique_ptr<Server> Start(const ConnectionLimits& limits) {
  ServerOptions options;
  options.connections = limits;
  auto server = Server::Start(options, {});
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

bool Connects(const Server& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel = grpc::CreateCustomChannel(
      server.address(), grpc::InsecureChannelCredentials(), arguments);
  return channel->WaitForConnected(std::chrono::system_clock::now() + 60s);
}

TEST(ConnectionListenerTest, OneMoreThanTheLimitIsClosedUntilAnotherGoes) {
  const auto server = Start({.total = 3, .per_host = 100});
  ASSERT_NE(server, nullptr);
  std::vector<Socket> open;
  for (int i = 0; i < 3; ++i) open.emplace_back(server->port());
  for (const Socket& socket : open) EXPECT_FALSE(socket.Refused());
  EXPECT_TRUE(Shows("ratequant_connections 3"));
  EXPECT_TRUE(Shows("ratequant_connections_capacity 3"));
  EXPECT_TRUE(Socket(server->port()).Refused());
  EXPECT_TRUE(Shows("ratequant_connections_refused_total{limit=\"total\"} 1"));
  open.pop_back();
  EXPECT_TRUE(Eventually([] { return Shows("ratequant_connections 2"); }));
  EXPECT_TRUE(Connects(*server));
}

TEST(ConnectionListenerTest, OneHostLeavesRoomForOthers) {
  const auto server = Start({.total = 100, .per_host = 2});
  ASSERT_NE(server, nullptr);
  const Socket first(server->port()), second(server->port());
  EXPECT_FALSE(first.Refused());
  EXPECT_FALSE(second.Refused());
  EXPECT_TRUE(Socket(server->port()).Refused());
  EXPECT_TRUE(Shows("ratequant_connections_refused_total{limit=\"host\"} 1"));
  EXPECT_FALSE(Socket(server->port(), "127.0.0.2").Refused());
}

TEST(ConnectionListenerTest, OneThatBothSidesLeaveIsForgotten) {
  const auto server = Start({.total = 2, .per_host = 2});
  ASSERT_NE(server, nullptr);
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(Connects(*server));
    ASSERT_TRUE(Eventually([] { return Shows("ratequant_connections 0"); }));
  }
}

TEST(ConnectionListenerTest, AServerThatStopsLetsThePortGo) {
  auto server = Start({});
  ASSERT_NE(server, nullptr);
  const Socket open(server->port());
  EXPECT_FALSE(open.Refused());
  ServerOptions same;
  same.address = server->address();
  EXPECT_EQ(ErrorReason(Server::Start(same, {}).status()),
            "ADDRESS_UNAVAILABLE");
  server->Shutdown(0ms);
  EXPECT_TRUE(Server::Start(same, {}).ok());
}

TEST(ConnectionListenerTest, AllAddressesAreOfBothKinds) {
  for (const char* host : {"0.0.0.0:0", "[::]:0"}) {
    ServerOptions options;
    options.address = host;
    options.insecure = true;
    const auto server = Server::Start(options, {});
    ASSERT_TRUE(server.ok()) << host << ": " << server.status();
    EXPECT_FALSE(Socket((*server)->port()).Refused()) << host;
  }
}

}  // namespace
}  // namespace ratequant
