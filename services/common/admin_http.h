#ifndef RATEQUANT_SERVICES_COMMON_ADMIN_HTTP_H_
#define RATEQUANT_SERVICES_COMMON_ADMIN_HTTP_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ratequant {

struct AdminHttpOptions {
  // "IP:port" or "port", which is on loopback; port 0 lets the system choose.
  std::string listen;

  // When not empty, the port is written here, by rename.
  std::string port_file;

  // For the page: the program's name and how it was configured. No secrets.
  std::string program;
  std::string configuration;
};

// What a person or a monitoring system may look at, over plain HTTP, nothing
// else: GET and HEAD of
//   /metrics   Prometheus' text format (metrics.h)
//   /healthz   200 while the process answers
//   /readyz    200 while it serves, else 503 with the reason
//   /debug     a page of text: version, uptime, configuration, gauges and
//              counters, recent warnings and errors; only for loopback
//
// Thread-safe. Requests that run are finished before it is destroyed.
class AdminHttp {
 public:
  // Errors of ParseListenAddress and ProbeListenAddress; UNAVAILABLE
  // (ADDRESS_UNAVAILABLE) when the server can't be started; those of
  // WritePortFile.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(
      const AdminHttpOptions& options);

  ~AdminHttp();
  AdminHttp(const AdminHttp&) = delete;
  AdminHttp& operator=(const AdminHttp&) = delete;

  int port() const { return port_; }

  // What /readyz answers with; until it is set, and with null, it says that the
  // program is starting or stopping. What `ready` uses must outlive it.
  void SetReady(std::function<absl::Status()> ready);

 private:
  class Impl;

  AdminHttp();

  std::unique_ptr<Impl> impl_;
  std::string port_file_;
  int port_ = 0;
};

// While it lives, /readyz answers with `ready`. `admin` may be null.
class ReadyScope {
 public:
  ReadyScope(AdminHttp* admin, std::function<absl::Status()> ready)
      : admin_(admin) {
    if (admin_ != nullptr) admin_->SetReady(std::move(ready));
  }
  ~ReadyScope() {
    if (admin_ != nullptr) admin_->SetReady(nullptr);
  }
  ReadyScope(const ReadyScope&) = delete;
  ReadyScope& operator=(const ReadyScope&) = delete;

 private:
  AdminHttp* const admin_;
};

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_ADMIN_HTTP_H_
