#include "services/common/command_line.h"

#include <chrono>
#include <cstdint>
#include <iostream>

#include "services/common/config.h"
#include "services/common/status.h"

namespace ratequant {

namespace {

void AddAddressFlags(CLI::App& app, ServerOptions* server) {
  app.add_option("--address", server->address,
                 "Address to listen on, IP:port; port 0 lets the system choose")
      ->type_name("IP:PORT")
      ->capture_default_str();
  app.add_flag("--insecure", server->insecure,
               "Allow an address that isn't loopback, without TLS or without "
               "an access policy");
  app.add_option("--health-address", server->health_address,
                 "Also answer health checks here, in plaintext, for probes "
                 "that can't do TLS")
      ->type_name("IP:PORT");
  app.add_option("--port-file", server->port_file,
                 "Write the port here once calls are accepted")
      ->type_name("FILE");
}

void AddTlsFlags(CLI::App& app, CommonFlags* flags) {
  TlsFiles& tls = flags->server.tls;
  CLI::Option* certificate =
      app.add_option("--tls-cert", tls.certificate,
                     "Certificate chain of this server, PEM, leaf first")
          ->type_name("FILE");
  CLI::Option* key =
      app.add_option("--tls-key", tls.key, "Key of the certificate, PEM")
          ->type_name("FILE")
          ->needs(certificate);
  certificate->needs(key);
  CLI::Option* ca =
      app.add_option("--tls-client-ca", tls.ca,
                     "CA certificates, PEM: clients must show a certificate "
                     "from one of them")
          ->type_name("FILE")
          ->needs(certificate);
  app.add_flag("--tls-client-optional", flags->client_certificate_optional,
               "Let clients in without a certificate, for those with a token")
      ->needs(ca);
  app.add_option(
         "--auth-policy", flags->gate.policy_file,
         "Who may do what, JSON (deploy/CONFIG.md); without it everyone "
         "may do everything")
      ->type_name("FILE");
  app.add_option("--auth-tokens", flags->gate.token_file,
                 "Bearer tokens that the policy names: lines of NAME TOKEN")
      ->type_name("FILE");
  app.add_option("--reload-interval", flags->reload_interval,
                 "How often certificates, policy and tokens are looked at")
      ->check(CLI::Range(1.0, 86400.0))
      ->type_name("SECONDS")
      ->capture_default_str();
}

void AddLimitFlags(CLI::App& app, CommonFlags* flags) {
  app.add_option("--max-streams", flags->server.max_streams,
                 "Calls that run at once on one connection")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("CALLS")
      ->capture_default_str();
  app.add_option("--max-connections", flags->server.connections.total,
                 "Connections at once; more are closed")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("CONNECTIONS")
      ->capture_default_str();
  app.add_option("--client-connections", flags->server.connections.per_host,
                 "Connections at once of one IP address; more are closed")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("CONNECTIONS")
      ->capture_default_str();
  ClientLimits& limits = flags->gate.limits;
  app.add_option("--client-rate", limits.rate,
                 "Most calls a second of one client, on average; 0: no limit")
      ->check(CLI::Range(0.0, 1e9))
      ->type_name("CALLS")
      ->capture_default_str();
  app.add_option("--client-burst", limits.burst,
                 "Calls that a client may make at once, with --client-rate")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("CALLS")
      ->capture_default_str();
  app.add_option("--client-calls", limits.in_flight,
                 "Calls of one client that may wait or be worked on; 0: no "
                 "limit")
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("CALLS")
      ->capture_default_str();
}

void AddObservationFlags(CLI::App& app, CommonFlags* flags) {
  app.add_option("--log-format", flags->log_format,
                 "text or json, both one line a message")
      ->check(CLI::IsMember({"text", "json"}))
      ->type_name("FORMAT")
      ->capture_default_str();
  app.add_option(
         "--admin-listen", flags->admin.listen,
         "Answer /metrics, /healthz, /readyz and /debug over HTTP here; "
         "a port alone is on loopback")
      ->type_name("[IP:]PORT");
  app.add_option("--admin-port-file", flags->admin.port_file,
                 "Write the port of --admin-listen here")
      ->type_name("FILE");
  app.add_flag("--channelz", flags->server.channelz,
               "Answer grpc.channelz.v1, which shows all connections to "
               "everyone who can connect");
}

}  // namespace

void AddCommonFlags(CLI::App& app, CommonFlags* flags) {
  AddAddressFlags(app, &flags->server);
  AddTlsFlags(app, flags);
  AddLimitFlags(app, flags);
  app.add_option("--log-level", flags->log_level,
                 "trace, debug, info, warning, error or off")
      ->check(
          CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}))
      ->type_name("LEVEL")
      ->capture_default_str();
  AddObservationFlags(app, flags);
}

void AddShutdownFlags(CLI::App& app, double* drain_delay,
                      double* shutdown_grace, const std::string& work) {
  app.add_option("--drain-delay", *drain_delay,
                 "How long calls are still taken after SIGTERM, while health "
                 "says NOT_SERVING, for load balancers to notice")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_option("--shutdown-grace", *shutdown_grace,
                 "How long " + work + " may go on after SIGTERM and that")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
}

void FinishCommonFlags(CommonFlags* flags) {
  const auto interval = std::chrono::milliseconds(
      static_cast<int64_t>(flags->reload_interval * 1000));
  flags->gate.reload_interval = interval;
  flags->server.tls.reload_interval =
      std::chrono::ceil<std::chrono::seconds>(interval);
  flags->server.client_certificate = flags->client_certificate_optional
                                         ? ClientCertificate::kOptional
                                         : ClientCertificate::kRequired;
  flags->server.authorized = !flags->gate.policy_file.empty();
}

std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv) {
  AddConfigSources(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done, std::cout, std::cerr);
  } catch (const CLI::ParseError& error) {
    std::cerr << app.get_name() << ": " << ExplainConfigError(app, error)
              << "\nSee " << app.get_name() << " --help.\n";
    return kExitUsage;
  }
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<AdminHttp>> StartAdmin(const CLI::App& app,
                                                      CommonFlags* flags) {
  if (flags->admin.listen.empty()) return std::unique_ptr<AdminHttp>();
  flags->admin.program = app.get_name();
  flags->admin.configuration = app.config_to_str(/*default_also=*/true);
  return AdminHttp::Start(flags->admin);
}

int ReportStartFailure(const std::string& program, const absl::Status& status) {
  std::cerr << program << ": " << status.message() << "\n";
  const std::string reason = ErrorReason(status);
  if (reason == "ADDRESS_UNAVAILABLE") return kExitAddress;
  if (reason == "INSECURE_ADDRESS" ||
      status.code() == absl::StatusCode::kInvalidArgument) {
    return kExitUsage;
  }
  return kExitFailure;
}

}  // namespace ratequant
