#include "services/common/admin_http.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "CivetServer.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/common/listen_address.h"
#include "services/common/logging.h"
#include "services/common/metrics.h"
#include "services/common/port_file.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

// The longest page; a configuration or the number of metrics can't grow it.
constexpr size_t kMaxPageBytes = 256 << 10;

struct Page {
  int code = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

void Send(mg_connection* connection, const Page& page, bool body) {
  const char* const word = page.code == 200   ? "OK"
                           : page.code == 403 ? "Forbidden"
                                              : "Service Unavailable";
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            "Connection: close\r\n\r\n",
            page.code, word, page.type.c_str(), page.body.size());
  if (body) mg_write(connection, page.body.data(), page.body.size());
}

// A path that answers with what a function makes for each request.
class PageHandler : public CivetHandler {
 public:
  using Make = std::function<Page(const mg_connection* connection)>;

  explicit PageHandler(Make make) : make_(std::move(make)) {}

  bool handleGet(CivetServer*, mg_connection* connection) override {
    Send(connection, make_(connection), true);
    return true;
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    Send(connection, make_(connection), false);
    return true;
  }

 private:
  const Make make_;
};

bool FromLoopback(const mg_connection* connection) {
  const std::string from = mg_get_request_info(connection)->remote_addr;
  return absl::StartsWith(from, "127.") || from == "::1";
}

// Values of this system's gauges and counters, without comments and
// histograms, which are too long to read.
std::string Values(const std::string& metrics) {
  std::string values;
  for (const absl::string_view line : absl::StrSplit(metrics, '\n')) {
    if (absl::StartsWith(line, "ratequant_") &&
        !absl::StrContains(line, "_bucket{")) {
      absl::StrAppend(&values, line, "\n");
    }
  }
  return values;
}

}  // namespace

class AdminHttp::Impl {
 public:
  explicit Impl(const AdminHttpOptions& options)
      : options_(options),
        start_(absl::Now()),
        metrics_([](const mg_connection*) {
          return Page{200, "text/plain; version=0.0.4; charset=utf-8",
                      Metrics::Get().Text()};
        }),
        health_([](const mg_connection*) { return Page{.body = "ok\n"}; }),
        ready_([this](const mg_connection*) { return Ready(); }),
        debug_([this](const mg_connection* connection) {
          return Debug(connection);
        }),
        samples_(Metrics::Get().Sample(
            [program = options.program](MetricSamples* out) {
              SampleProcess(program, out);
            })) {}

  // Throws CivetException.
  int Listen(const std::string& address) {
    const std::vector<std::string> settings = {"listening_ports",
                                               address,
                                               "num_threads",
                                               "4",
                                               "request_timeout_ms",
                                               "5000",
                                               "keep_alive_timeout_ms",
                                               "500",
                                               "max_request_size",
                                               "8192",
                                               "enable_directory_listing",
                                               "no"};
    server_ = std::make_unique<CivetServer>(settings);
    // Exactly these paths: "$" ends a pattern.
    server_->addHandler("/metrics$", metrics_);
    server_->addHandler("/healthz$", health_);
    server_->addHandler("/readyz$", ready_);
    server_->addHandler("/debug$", debug_);
    const std::vector<int> ports = server_->getListeningPorts();
    return ports.empty() ? 0 : ports[0];
  }

  void SetReady(std::function<absl::Status()> ready) {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_ready_ = std::move(ready);
  }

 private:
  Page Ready() {
    absl::Status status = absl::UnavailableError("starting or stopping");
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (is_ready_ != nullptr) status = is_ready_();
    }
    if (status.ok()) return {.body = "ready\n"};
    return {.code = 503, .body = absl::StrCat(status.message(), "\n")};
  }

  Page Debug(const mg_connection* connection) {
    if (!FromLoopback(connection)) {
      return {.code = 403, .body = "only for clients on this machine\n"};
    }
    Page page;
    absl::StrAppend(&page.body, options_.program, " ", RATEQUANT_VERSION,
                    "\nup ",
                    absl::FormatDuration(
                        absl::Trunc(absl::Now() - start_, absl::Seconds(1))),
                    "\nready: ", Ready().body);
    absl::StrAppend(&page.body, "\nRecent warnings and errors\n");
    for (const std::string& line : RecentProblems()) {
      absl::StrAppend(&page.body, line.substr(0, 4000));
      if (page.body.back() != '\n') page.body.push_back('\n');
    }
    absl::StrAppend(&page.body, "\nNow\n", Values(Metrics::Get().Text()),
                    "\nConfiguration\n", options_.configuration);
    if (page.body.size() > kMaxPageBytes) page.body.resize(kMaxPageBytes);
    return page;
  }

  const AdminHttpOptions options_;
  const absl::Time start_;
  std::mutex mutex_;
  std::function<absl::Status()> is_ready_;  // guarded by mutex_
  PageHandler metrics_, health_, ready_, debug_;
  const std::shared_ptr<void> samples_;
  std::unique_ptr<CivetServer> server_;  // last: its threads use the others
};

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(
    const AdminHttpOptions& options) {
  const bool only_port = !absl::StrContains(options.listen, ':');
  const auto address = ParseListenAddress(
      only_port ? absl::StrCat("127.0.0.1:", options.listen) : options.listen);
  if (!address.ok()) return Annotate(address.status(), "--admin-listen");
  absl::Status free = ProbeListenAddress(*address);
  if (!free.ok()) return free;
  std::unique_ptr<AdminHttp> admin(new AdminHttp());
  admin->impl_ = std::make_unique<Impl>(options);
  try {
    admin->port_ = admin->impl_->Listen(address->ToString());
  } catch (const CivetException& error) {
    return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_UNAVAILABLE",
                     absl::StrCat("cannot listen on ", address->ToString(),
                                  ": ", error.what()),
                     {{"address", address->ToString()}});
  }
  if (!options.port_file.empty()) {
    absl::Status written = WritePortFile(options.port_file, admin->port_);
    if (!written.ok()) return written;
    admin->port_file_ = options.port_file;
  }
  return admin;
}

AdminHttp::AdminHttp() = default;

AdminHttp::~AdminHttp() {
  if (!port_file_.empty()) std::remove(port_file_.c_str());
}

void AdminHttp::SetReady(std::function<absl::Status()> ready) {
  impl_->SetReady(std::move(ready));
}

}  // namespace ratequant
