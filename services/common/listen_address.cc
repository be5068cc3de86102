#include "services/common/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

absl::Status BadAddress(absl::string_view text) {
  return FieldError(
      "INVALID_ARGUMENT", "address",
      absl::StrCat("'", text,
                   "' isn't an address to listen on; use IPv4:port, "
                   "[IPv6]:port or localhost:port with a port from 0 to "
                   "65535"));
}

// Fills `storage` and returns its length, 0 when `host` isn't an IP address.
socklen_t ToSockaddr(const std::string& host, int port,
                     sockaddr_storage* storage) {
  std::memset(storage, 0, sizeof(*storage));
  auto* v4 = reinterpret_cast<sockaddr_in*>(storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    return sizeof(sockaddr_in);
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(storage);
  if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    return sizeof(sockaddr_in6);
  }
  return 0;
}

bool IsLoopback(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

// A socket that listens; -1 and the cause.
int Listen(const std::string& host, int port, int backlog, int* error) {
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(host, port, &storage);
  const int fd =
      socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1, off = 0;
  // A port in TIME_WAIT is free, one that is listened on isn't.
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (fd >= 0 && storage.ss_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0 &&
      listen(fd, backlog) == 0) {
    return fd;
  }
  *error = errno;
  if (fd >= 0) close(fd);
  return -1;
}

}  // namespace

std::string ListenAddress::ToString() const {
  if (host.find(':') != std::string::npos) {
    return absl::StrCat("[", host, "]:", port);
  }
  return absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return BadAddress(text);
  ListenAddress address;
  absl::string_view host = text.substr(0, colon);
  const bool bracketed =
      host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if ((host.find(':') != absl::string_view::npos) != bracketed) {
    return BadAddress(text);
  }
  address.host = host == "localhost" ? "127.0.0.1" : std::string(host);
  if (!absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > 65535) {
    return BadAddress(text);
  }
  sockaddr_storage storage;
  if (ToSockaddr(address.host, address.port, &storage) == 0) {
    return BadAddress(text);
  }
  address.loopback = IsLoopback(storage);
  return address;
}

bool IsLoopbackTarget(absl::string_view target) {
  if (absl::StartsWith(target, "unix:")) return true;
  const auto address = ParseListenAddress(target);
  return address.ok() && address->loopback;
}

absl::StatusOr<int> BindListenAddress(const ListenAddress& address, int backlog,
                                      int* port) {
  int error = 0;
  int fd = -1;
  if (address.host == "0.0.0.0")
    fd = Listen("::", address.port, backlog, &error);
  // There may be no IPv6.
  if (fd < 0) fd = Listen(address.host, address.port, backlog, &error);
  if (fd < 0) {
    return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_UNAVAILABLE",
                     absl::StrCat("cannot listen on ", address.ToString(), ": ",
                                  std::strerror(error)),
                     {{"address", address.ToString()}});
  }
  sockaddr_storage bound = {};
  socklen_t length = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  // The port lies at the same place of both kinds.
  *port = ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  return fd;
}

absl::Status ProbeListenAddress(const ListenAddress& address) {
  int port = 0;
  const absl::StatusOr<int> fd = BindListenAddress(address, 1, &port);
  if (!fd.ok()) return fd.status();
  close(*fd);
  return absl::OkStatus();
}

}  // namespace ratequant
