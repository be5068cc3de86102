#ifndef RATEQUANT_SERVICES_COMMON_LISTEN_ADDRESS_H_
#define RATEQUANT_SERVICES_COMMON_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant {

// Where a server listens.
struct ListenAddress {
  std::string host;  // an IPv4 or IPv6 address, without brackets
  int port = 0;      // 0: the system chooses
  bool loopback = false;

  // "host:port", IPv6 in brackets.
  std::string ToString() const;
};

// Parses "IPv4:port", "[IPv6]:port" or "localhost:port" (127.0.0.1).
// INVALID_ARGUMENT names what is wrong.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

// Whether calls to "host:port" stay on this machine: a loopback address,
// localhost, or a unix socket.
bool IsLoopbackTarget(absl::string_view target);

// Binds and listens: a socket that doesn't block, the caller's to close, and
// its port. As with gRPC's, "0.0.0.0" and "[::]" are all addresses of both
// kinds. UNAVAILABLE (ADDRESS_UNAVAILABLE) with the system's words when it
// can't be bound, for example because another process listens there.
absl::StatusOr<int> BindListenAddress(const ListenAddress& address, int backlog,
                                      int* port);

// Tries that and lets go again. Same errors.
absl::Status ProbeListenAddress(const ListenAddress& address);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_LISTEN_ADDRESS_H_
