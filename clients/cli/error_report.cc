#include "clients/cli/error_report.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/table.h"
#include "clients/cpp/status.h"
#include "clients/cpp/transport.h"

namespace ratequant::cli {
namespace {

constexpr size_t kMaxAvailable = 10;

std::string AvailableText(const std::vector<std::string>& available) {
  std::vector<std::string> shown(
      available.begin(),
      available.begin() + std::min(available.size(), kMaxAvailable));
  std::string text = absl::StrJoin(shown, ", ");
  if (available.size() > shown.size()) {
    absl::StrAppend(&text, " and ", available.size() - shown.size(), " more");
  }
  return text;
}

std::vector<std::string> UnreachableSteps(const absl::Status& status,
                                          const ErrorContext& context) {
  if (absl::StrContains(status.message(), "certificate verify failed")) {
    return {
        "its certificate has expired, is for another name, or isn't from a CA "
        "in --tls-ca; ratequant doctor --certificate FILE  tells when it "
        "expires"};
  }
  if (absl::IsDeadlineExceeded(status)) {
    return {"give it longer with --timeout SECONDS, or check the endpoint"};
  }
  bool worker = client::StatusServer(status) == client::Server::kWorker;
  std::string program = worker ? "ratequant-worker" : "ratequant-allocator";
  std::string options =
      worker ? "--model-root DIR --spool-dir DIR" : "--data-dir DIR";
  const std::string& endpoint =
      worker ? context.worker_endpoint : context.allocator_endpoint;
  return {client::IsLoopback(endpoint)
              ? absl::StrCat("start it:  ", program, " --address ", endpoint,
                             " ", options)
              : absl::StrCat("check that ", program, " runs there"),
          worker ? "or say where it runs: --worker-endpoint HOST:PORT, or set "
                   "RATEQUANT_WORKER_ENDPOINT"
                 : "or say where it runs: --endpoint HOST:PORT, or set "
                   "RATEQUANT_ENDPOINT"};
}

std::vector<std::string> ModelSteps(const ErrorContext& context) {
  if (context.available.empty()) {
    return {"calibrate it:  ratequant calibrate --help",
            "ratequant models  lists the models that are calibrated"};
  }
  return {absl::StrCat("calibrated models: ", AvailableText(context.available)),
          "calibrate another:  ratequant calibrate --help"};
}

std::vector<std::string> QuantizerSteps(const ErrorContext& context) {
  std::vector<std::string> steps;
  if (!context.available.empty()) {
    steps.push_back(
        absl::StrCat("calibrated: ", AvailableText(context.available)));
  }
  steps.push_back(
      "use one of those with --quantizer, or leave --quantizer out for the "
      "best mix of all");
  steps.push_back("measure another:  ratequant calibrate ... --quantizer NAME");
  return steps;
}

std::vector<std::string> CalibrationSteps(const ErrorContext& context) {
  std::vector<std::string> steps;
  if (!context.available.empty()) {
    steps.push_back(
        absl::StrCat("calibrations: ", AvailableText(context.available)));
  }
  steps.push_back(absl::StrCat(
      "ratequant calibrations list",
      context.model.empty() ? "" : absl::StrCat(" --model ", context.model),
      "  lists them"));
  return steps;
}

}  // namespace

std::vector<std::string> NextSteps(const absl::Status& status,
                                   const ErrorContext& context) {
  if (IsUsageError(status)) {
    return {absl::StrCat("ratequant ", context.verb,
                         context.verb.empty() ? "" : " ", "--help")};
  }
  if (client::IsUnreachable(status)) return UnreachableSteps(status, context);
  std::string reason = client::ErrorReason(status);
  if (reason == "MODEL_NOT_FOUND") return ModelSteps(context);
  if (reason == "QUANTIZER_NOT_CALIBRATED") return QuantizerSteps(context);
  if (reason == "OBJECTIVE_NOT_CALIBRATED") {
    return {absl::StrCat("ratequant calibrate --attention-output --model ",
                         context.model,
                         " ...  measures what --objective attention-output "
                         "needs")};
  }
  if (reason == "CALIBRATION_NOT_FOUND") return CalibrationSteps(context);
  if (reason == "BUDGET_BELOW_MINIMUM" || reason == "BUDGET_ABOVE_MAXIMUM") {
    return {absl::StrCat("ratequant curve --model ", context.model,
                         "  shows which budgets are possible")};
  }
  if (reason == "NOTHING_FITS") {
    return {
        "lower --batch or --context to what fits, give more --gpu-memory, or "
        "allow cheaper maps with other --quantizer or a lower --min-width"};
  }
  if (reason == "BUDGET_NEEDS_ONE_QUANTIZER") {
    return {
        "name one with --quantizer, or give the budget as "
        "--effective-bits, which counts every overhead"};
  }
  if (reason == "OBJECTIVE_NEEDS_ONE_QUANTIZER") {
    return {"name one with --quantizer, or use --objective loss-projected"};
  }
  if (reason == "CALIBRATION_MISMATCH") {
    return {
        "leave --sinks out to use the calibration's, or calibrate again "
        "with other --sinks"};
  }
  if (reason == "UNAUTHENTICATED") {
    return {
        "say who you are: --token-file FILE, or --tls-cert FILE and --tls-key "
        "FILE"};
  }
  if (reason == "ACCESS_DENIED") {
    return {"ask whoever runs the server for a role in its --auth-policy"};
  }
  if (reason == "WORKER_BUSY") {
    return {"wait for the running calibration to end, then try again"};
  }
  if (reason == "TEXT_TOO_SHORT") {
    return {
        "give a longer --text, or fewer --sequences or a shorter "
        "--sequence-length"};
  }
  if (reason == "MODEL_PATH_NOT_FOUND" || reason == "MODEL_PATH_OUTSIDE_ROOT") {
    return {
        "--model-path is taken on the worker's machine, relative to its "
        "model root"};
  }
  if (reason == "ENGINE_OUT_OF_MEMORY") {
    return {"use a shorter --sequence-length, or a machine with more memory"};
  }
  return {};
}

std::string RenderError(const absl::Status& status, const ErrorContext& context,
                        const TextStyle& style) {
  std::string text = absl::StrCat(Paint(style, Ink::kRed, "ratequant:"), " ",
                                  std::string(status.message()), "\n");
  std::vector<std::pair<std::string, std::string>> lines;
  lines.emplace_back("  reason", client::ErrorReason(status));
  for (const client::FieldViolation& violation :
       client::FieldViolations(status)) {
    // The server's message quotes the first one already.
    bool said = absl::StrContains(status.message(), violation.field) &&
                absl::StrContains(status.message(), violation.description);
    if (said) continue;
    lines.emplace_back(
        "  field", absl::StrCat(violation.field, ": ", violation.description));
  }
  lines.emplace_back("  next", absl::StrJoin(NextSteps(status, context), "\n"));
  return absl::StrCat(text, RenderPairs(lines, style));
}

}  // namespace ratequant::cli
