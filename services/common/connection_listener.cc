#include "services/common/connection_listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "spdlog/spdlog.h"

namespace ratequant {
namespace {

// Connections that wait to be taken; the kernel refuses more.
constexpr int kBacklog = 1024;

// Until descriptors or memory may be there again.
constexpr std::chrono::milliseconds kAcceptPause(50);

constexpr std::chrono::seconds kRefusalLogInterval(10);

constexpr int kDescriptorsOfOne = 2;

constexpr int kAcceptsAtOnce = 64;

// Makes room for `total` connections; how many there is room for.
int RoomFor(int total) {
  const rlim_t wanted = static_cast<rlim_t>(total) * kDescriptorsOfOne +
                        ConnectionListener::kSpareDescriptors;
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= wanted) {
    return total;
  }
  files.rlim_cur = std::min(wanted, files.rlim_max);
  setrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur >= wanted) return total;
  // Half of few: neither side is starved.
  const rlim_t spare = std::min<rlim_t>(ConnectionListener::kSpareDescriptors,
                                        files.rlim_cur / 2);
  const int room = std::max(
      1, static_cast<int>((files.rlim_cur - spare) / kDescriptorsOfOne));
  spdlog::warn("{} open files allow {} connections, not {}; raise the limit",
               files.rlim_cur, room, total);
  return room;
}

std::string HostOf(const sockaddr_storage& peer) {
  std::array<char, INET6_ADDRSTRLEN> text = {};
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
  } else {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&v6);
    inet_ntop(mapped ? AF_INET : AF_INET6,
              mapped ? &v6.s6_addr[12] : &v6.s6_addr[0], text.data(),
              text.size());
  }
  return text.data();
}

void Watch(int poll, int descriptor, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = descriptor;
  epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectionListener>> ConnectionListener::Listen(
    const ListenAddress& address, const ConnectionLimits& limits) {
  int port = 0;
  const absl::StatusOr<int> listener =
      BindListenAddress(address, kBacklog, &port);
  if (!listener.ok()) return listener.status();
  ConnectionLimits held = limits;
  held.total = RoomFor(limits.total);
  return std::unique_ptr<ConnectionListener>(
      new ConnectionListener(*listener, port, held));
}

ConnectionListener::ConnectionListener(int listener, int port,
                                       const ConnectionLimits& limits)
    : limits_(limits),
      port_(port),
      listener_(listener),
      poll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC)) {
  // Sockets have what their listener has. Calls are small and wait for answers.
  const int on = 1;
  setsockopt(listener_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  Watch(poll_, wake_, EPOLLIN);
}

ConnectionListener::~ConnectionListener() {
  Stop();
  if (thread_.joinable()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    eventfd_write(wake_, 1);
    thread_.join();
  }
  for (const auto& [watch, host] : host_of_) close(watch);
  close(poll_);
  close(wake_);
}

void ConnectionListener::Start(std::unique_ptr<Acceptor> acceptor) {
  acceptor_ = std::move(acceptor);
  Watch(poll_, listener_, EPOLLIN);
  thread_ = std::thread([this] { Run(); });
}

void ConnectionListener::Stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (listener_ < 0) return;
  close(listener_);
  listener_ = -1;
}

ConnectionListener::Counts ConnectionListener::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

void ConnectionListener::Run() {
  std::array<epoll_event, 64> events;
  while (true) {
    const int count = epoll_wait(poll_, events.data(), events.size(), -1);
    bool accepts = true;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
      for (int i = 0; i < count; ++i) {
        const int descriptor = events[i].data.fd;
        if (descriptor == listener_) {
          accepts = Accept();
        } else if (host_of_.count(descriptor) > 0) {
          Closed(descriptor);
        }
      }
    }
    if (!accepts) std::this_thread::sleep_for(kAcceptPause);
  }
}

// Takes what waits, but not for long. False when the system has no room; mutex_
// held.
bool ConnectionListener::Accept() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    sockaddr_storage peer = {};
    socklen_t length = sizeof(peer);
    const int fd = accept4(listener_, reinterpret_cast<sockaddr*>(&peer),
                           &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
                   errno == ENOBUFS)) {
      return false;
    }
    if (fd < 0) return true;  // none waits, or it is gone already
    std::string host = HostOf(peer);
    const int watch = Admit(host) ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (watch < 0) {
      close(fd);
      continue;
    }
    ++counts_.open;
    ++by_host_[host];
    host_of_[watch] = std::move(host);
    // Once both ends are shut, which is the first that gRPC does.
    Watch(poll_, watch, 0);
    Acceptor::NewConnectionParameters connection;
    connection.listener_fd = listener_;
    connection.fd = fd;
    acceptor_->HandleNewConnection(&connection);
  }
  return true;
}

// mutex_ held.
bool ConnectionListener::Admit(const std::string& host) {
  const auto found = by_host_.find(host);
  const bool full = counts_.open >= limits_.total;
  if (!full && (found == by_host_.end() || found->second < limits_.per_host)) {
    return true;
  }
  ++(full ? counts_.refused_total : counts_.refused_host);
  const auto now = std::chrono::steady_clock::now();
  if (now - told_ >= kRefusalLogInterval) {
    told_ = now;
    spdlog::warn("refused a connection of {}: there are {}{}", host,
                 full ? limits_.total : limits_.per_host, full ? "" : " of it");
  }
  return false;
}

// mutex_ held.
void ConnectionListener::Closed(int watch) {
  const auto found = host_of_.find(watch);
  const auto of_host = by_host_.find(found->second);
  if (--of_host->second == 0) by_host_.erase(of_host);
  --counts_.open;
  host_of_.erase(found);
  close(watch);
}

}  // namespace ratequant
