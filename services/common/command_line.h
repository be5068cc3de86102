#ifndef RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_
#define RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_

#include <memory>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/common/admin_http.h"
#include "services/common/call_gate.h"
#include "services/common/server.h"

namespace ratequant {

// Exit codes of the services. Part of their command line: do not change.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;  // anything not listed below
inline constexpr int kExitUsage = 2;    // a bad flag, setting, or file of one
inline constexpr int kExitAddress = 3;  // the address can't be listened on
inline constexpr int kExitDataFolder = 4;  // the data folder can't be used

// Flags every service has.
struct CommonFlags {
  ServerOptions server;
  CallGateOptions gate;
  std::string log_level = "info";
  std::string log_format = "text";
  AdminHttpOptions admin;

  // Seconds; FinishCommonFlags puts them where they belong.
  double reload_interval = 10;
  bool client_certificate_optional = false;
};

// Adds the flags of deploy/CONFIG.md that both services have. `flags` must
// outlive `app`; flags->server.address is the default address.
void AddCommonFlags(CLI::App& app, CommonFlags* flags);

// Adds --drain-delay and --shutdown-grace, both in seconds; `work` says what
// may go on ("calls").
void AddShutdownFlags(CLI::App& app, double* drain_delay,
                      double* shutdown_grace, const std::string& work);

// Fills in what follows from several flags; after ParseCommandLine.
void FinishCommonFlags(CommonFlags* flags);

// Parses flags, environment and configuration file (config.h); answers with an
// exit code when the program is to end now: 0 after
// --help or --version, kExitUsage after a bad one, which standard error names.
std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv);

// Starts what --admin-listen asks for, and nothing without it; the page shows
// `app`'s configuration. Errors of AdminHttp::Start.
absl::StatusOr<std::unique_ptr<AdminHttp>> StartAdmin(const CLI::App& app,
                                                      CommonFlags* flags);

// Prints "program: message" on standard error and answers with the exit code
// that fits an error of Server::Start or CallGate::Open.
int ReportStartFailure(const std::string& program, const absl::Status& status);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_
