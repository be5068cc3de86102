#ifndef RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_
#define RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_

#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "services/common/server.h"

namespace ratequant {

// Exit codes of the services. Part of their command line: do not change.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;     // anything not listed below
inline constexpr int kExitUsage = 2;       // a bad flag
inline constexpr int kExitAddress = 3;     // the address can't be listened on
inline constexpr int kExitDataFolder = 4;  // the data folder can't be used

// Flags every service has.
struct CommonFlags {
  ServerOptions server;
  std::string log_level = "info";
};

// Adds --address, --insecure, --port-file and --log-level. `flags` must outlive
// `app`; flags->server.address is the default address.
void AddCommonFlags(CLI::App& app, CommonFlags* flags);

// Parses; answers with an exit code when the program is to end now: 0 after
// --help or --version, kExitUsage after a bad flag, which standard error names.
std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv);

// Prints "program: message" on standard error and answers with the exit code
// that fits an error of Server::Start.
int ReportStartFailure(const std::string& program, const absl::Status& status);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_COMMAND_LINE_H_
