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

absl::Status ProbeListenAddress(const ListenAddress& address) {
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(address.host, address.port, &storage);
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int error = fd < 0 ? errno : 0;
  if (error == 0) {
    // As gRPC does: a port in TIME_WAIT is free, one that is listened on isn't.
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0 ||
        listen(fd, 1) != 0) {
      error = errno;
    }
  }
  if (fd >= 0) close(fd);
  if (error == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_UNAVAILABLE",
                   absl::StrCat("cannot listen on ", address.ToString(), ": ",
                                std::strerror(error)),
                   {{"address", address.ToString()}});
}

}  // namespace ratequant
