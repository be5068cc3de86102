#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/help.h"
#include "grpcpp/grpcpp.h"

namespace ratequant::cli {

void AddVersionCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand("version", "Shows the version");
  SetHelp(*verb, {.examples = {"ratequant version"}});
  verb->callback([&session] {
    session.command = [&session] {
      if (session.json) {
        return session.PrintJson(
            absl::StrCat("{\"version\": \"", RATEQUANT_VERSION,
                         "\", \"api\": \"ratequant.v1\", \"grpc\": \"",
                         grpc::Version(), "\"}\n"));
      } else {
        session.Print(absl::StrCat("ratequant ", RATEQUANT_VERSION,
                                   " (API ratequant.v1, gRPC ", grpc::Version(),
                                   ")\n"));
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace ratequant::cli
