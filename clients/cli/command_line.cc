#include "clients/cli/command_line.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/config_file.h"
#include "clients/cli/error_report.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/help.h"
#include "clients/cli/session.h"
#include "clients/cli/usage_message.h"
#include "clients/cli/value_checks.h"
#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"
#include "clients/cpp/status.h"

namespace ratequant::cli {
namespace {

enum Output : int { kTable, kJson, kYaml };

const std::map<std::string, int> kOutputs = {
    {"table", kTable}, {"json", kJson}, {"yaml", kYaml}};

void AddTransportOptions(CLI::App& app, client::ConnectionOptions& connection) {
  client::TlsOptions& tls = connection.tls;
  app.add_flag("--tls", tls.enabled,
               "Encrypt; the system's CA certificates are good; or set "
               "RATEQUANT_TLS")
      ->envname("RATEQUANT_TLS")
      ->check(TrueOrFalse());
  const auto add_file = [&app](const char* name, std::string& file,
                               const char* variable, const char* description) {
    return app
        .add_option(name, file,
                    absl::StrCat(description, "; or set ", variable))
        ->envname(variable)
        ->check(ReadableFile())
        ->option_text("FILE");
  };
  add_file("--tls-ca", tls.ca, "RATEQUANT_TLS_CA",
           "Encrypt; only these CA certificates are good");
  CLI::Option* certificate =
      add_file("--tls-cert", tls.certificate, "RATEQUANT_TLS_CERT",
               "Encrypt, with this certificate chain of your own");
  CLI::Option* key = add_file("--tls-key", tls.key, "RATEQUANT_TLS_KEY",
                              "Key of that certificate");
  certificate->needs(key);
  key->needs(certificate);
  add_file("--token-file", connection.token_file, "RATEQUANT_TOKEN_FILE",
           "Send the bearer token in this file");
  app.add_flag("--insecure", connection.insecure,
               "Allow plaintext to a server on another machine; or set "
               "RATEQUANT_INSECURE")
      ->envname("RATEQUANT_INSECURE")
      ->check(TrueOrFalse());
}

void AddGlobalOptions(CLI::App& app, Session& session, double* timeout,
                      int* output) {
  client::ConnectionOptions& connection = session.connection;
  app.add_option("--endpoint", connection.allocator_endpoint,
                 absl::StrCat("Where ratequant-allocator listens; or set "
                              "RATEQUANT_ENDPOINT (default ",
                              connection.allocator_endpoint, ")"))
      ->envname("RATEQUANT_ENDPOINT")
      ->option_text("HOST:PORT");
  app.add_option("--worker-endpoint", connection.worker_endpoint,
                 absl::StrCat("Where ratequant-worker listens; or set "
                              "RATEQUANT_WORKER_ENDPOINT (default ",
                              connection.worker_endpoint, ")"))
      ->envname("RATEQUANT_WORKER_ENDPOINT")
      ->option_text("HOST:PORT");
  AddTransportOptions(app, connection);
  app.add_option("--timeout", *timeout,
                 "Longest time to wait for an answer (default 30; calibrate "
                 "has no limit unless this is given)")
      ->check(PositiveSeconds())
      ->option_text("SECONDS");
  app.add_option("--output", *output,
                 "Print for people (table, the default), or the API's messages "
                 "with its field names as json or yaml")
      ->transform(Choice(kOutputs))
      ->option_text("FORMAT");
  app.add_flag("--json", session.json, "The same as --output json");
  app.set_version_flag("--version",
                       std::string("ratequant ") + RATEQUANT_VERSION);
}

void ApplyTimeout(double seconds, bool given,
                  client::ConnectionOptions& connection) {
  if (!given) return;
  connection.timeout = absl::Seconds(seconds);
  connection.calibrate_timeout = absl::Seconds(seconds);
}

// Asks the server what there is instead; best effort.
std::vector<std::string> Available(const absl::Status& status,
                                   Session& session) {
  std::string reason = client::ErrorReason(status);
  std::vector<std::string> available;
  if (reason == "MODEL_NOT_FOUND") {
    auto models = session.client().ListModels();
    if (!models.ok()) return {};
    for (const v1::Model& model : *models) {
      available.push_back(client::ResourceId(model.name()));
    }
  } else if (reason == "CALIBRATION_NOT_FOUND") {
    auto calibrations = session.client().ListCalibrations(session.model);
    if (!calibrations.ok()) return {};
    for (const v1::Calibration& calibration : *calibrations) {
      available.push_back(ShortId(client::ResourceId(calibration.name())));
    }
  } else if (reason == "QUANTIZER_NOT_CALIBRATED") {
    auto calibration = session.client().GetCalibration(session.model);
    if (!calibration.ok()) return {};
    for (const v1::DistortionTable& table : calibration->tables()) {
      available.push_back(client::QuantizerText(table.quantizer()));
    }
  }
  return available;
}

int Report(const absl::Status& status, const std::string& verb,
           Session& session) {
  ErrorContext context = {
      .verb = verb,
      .model = session.model,
      .allocator_endpoint = session.connection.allocator_endpoint,
      .worker_endpoint = session.connection.worker_endpoint,
      .available = Available(status, session)};
  const Terminal& terminal = session.terminal();
  *terminal.err << RenderError(status, context, terminal.err_style)
                << std::flush;
  return ExitCodeOf(status);
}

}  // namespace

int RunCommandLine(int argc, char** argv, const Terminal& terminal) {
  Session session(terminal);
  CLI::App app(
      "RateQuant: mixed-precision KV-cache quantization. Calibrates models, "
      "and answers which\nhead's keys and values get how many bits.",
      "ratequant");
  app.formatter(std::make_shared<HelpFormatter>());
  app.fallthrough();
  app.require_subcommand(1);
  double timeout = 0;
  int output = kTable;
  AddGlobalOptions(app, session, &timeout, &output);
  AddConfigFile(app);
  AddCalibrateCommand(app, session);
  AddModelsCommand(app, session);
  AddCalibrationsCommand(app, session);
  AddBitMapCommand(app, session);
  AddCurveCommand(app, session);
  AddPlanCommand(app, session);
  AddPolicyCommand(app, session);
  AddReplayCommand(app, session);
  AddWatchCommand(app, session);
  AddEvaluationsCommand(app, session);
  AddAdminCommand(app, session);
  AddDoctorCommand(app, session);
  AddCompletionCommand(app, session);
  AddManCommand(app, session);
  AddVersionCommand(app, session);
  app.footer(absl::StrCat(
      "Each verb explains itself: ratequant bitmap get --help\n\nExamples:\n"
      "  ratequant calibrate --model-path SmolLM2-135M-Instruct --text "
      "calibration.txt\n"
      "  ratequant bitmap get --model SmolLM2-135M-Instruct --effective-bits "
      "3\n\n",
      kExitCodeHelp));
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return app.exit(done, *terminal.out, *terminal.err);
  } catch (const CLI::Error& error) {
    const UsageMessage message =
        ExplainUsage(error, app, {argv + 1, argv + argc});
    return Report(UsageError(message.text), message.verb, session);
  }
  session.yaml = output == kYaml && !session.json;
  session.json = session.json || output != kTable;
  ApplyTimeout(timeout, app.count("--timeout") > 0, session.connection);

  absl::Status status = session.command();
  if (status.ok() && !terminal.out->good()) {
    status = absl::DataLossError("cannot write to standard output");
  }
  if (!status.ok()) return Report(status, VerbName(DeepestVerb(app)), session);
  return kExitOk;
}

}  // namespace ratequant::cli
