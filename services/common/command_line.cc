#include "services/common/command_line.h"

#include <iostream>

#include "services/common/status.h"

namespace ratequant {

void AddCommonFlags(CLI::App& app, CommonFlags* flags) {
  app.add_option("--address", flags->server.address,
                 "Address to listen on, IP:port; port 0 lets the system choose")
      ->type_name("IP:PORT")
      ->capture_default_str();
  app.add_flag("--insecure", flags->server.insecure,
               "Allow an address that isn't loopback, in plaintext and without "
               "authentication");
  app.add_option("--port-file", flags->server.port_file,
                 "Write the port here once calls are accepted")
      ->type_name("FILE");
  app.add_option("--log-level", flags->log_level,
                 "trace, debug, info, warning, error or off")
      ->check(
          CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}))
      ->type_name("LEVEL")
      ->capture_default_str();
}

std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done, std::cout, std::cerr);
  } catch (const CLI::ParseError& error) {
    std::cerr << app.get_name() << ": " << error.what() << "\nSee "
              << app.get_name() << " --help.\n";
    return kExitUsage;
  }
  return std::nullopt;
}

int ReportStartFailure(const std::string& program, const absl::Status& status) {
  std::cerr << program << ": " << status.message() << "\n";
  const std::string reason = ErrorReason(status);
  if (reason == "ADDRESS_UNAVAILABLE") return kExitAddress;
  if (reason == "INSECURE_ADDRESS" || reason == "INVALID_ARGUMENT") {
    return kExitUsage;
  }
  return kExitFailure;
}

}  // namespace ratequant
