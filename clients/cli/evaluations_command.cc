#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/evaluation_view.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/help.h"
#include "clients/cli/text_file.h"
#include "clients/cpp/resource_names.h"
#include "google/protobuf/util/json_util.h"

namespace ratequant::cli {
namespace {

struct EvaluationFlags {
  std::string name;
  std::string file;
};

absl::Status List(const EvaluationFlags& flags, Session& session) {
  // A model in any form, or a map's resource name.
  auto evaluations = session.client().ListEvaluations(
      absl::StrContains(flags.name, "/bitMaps/")
          ? flags.name
          : client::ModelName(flags.name));
  if (!evaluations.ok()) return evaluations.status();
  if (session.json) {
    v1::ListEvaluationsResponse response;
    response.mutable_evaluations()->Add(evaluations->begin(),
                                        evaluations->end());
    return session.PrintJson(response);
  }
  if (evaluations->empty()) {
    session.Print(
        "no evaluation yet; see: python -m ratequant evaluate --help\n");
    return absl::OkStatus();
  }
  session.Print(RenderEvaluations(*evaluations, session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status Record(const EvaluationFlags& flags, Session& session) {
  absl::StatusOr<std::string> json = ReadTextFile(flags.file);
  if (!json.ok()) return json.status();
  v1::RecordEvaluationRequest request;
  request.set_bit_map(flags.name);
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      *json, request.mutable_evaluation());
  if (!parsed.ok()) {
    return UsageError(absl::StrCat(
        "'", flags.file, "' isn't an Evaluation in JSON: ", parsed.ToString()));
  }
  auto stored = session.client().RecordEvaluation(request);
  if (!stored.ok()) return stored.status();
  if (session.json) return session.PrintJson(*stored);
  session.Print(absl::StrCat("recorded ", stored->name(), "\n"));
  return absl::OkStatus();
}

absl::Status Delete(const EvaluationFlags& flags, Session& session) {
  absl::Status deleted = session.client().DeleteEvaluation(flags.name);
  if (!deleted.ok()) return deleted;
  if (session.json) {
    v1::DeleteEvaluationRequest done;
    done.set_name(flags.name);
    return session.PrintJson(done);
  }
  session.Print(absl::StrCat("deleted ", flags.name, "\n"));
  return absl::OkStatus();
}

// A verb below `evaluations` whose first word is a name.
CLI::App* AddVerb(CLI::App& verb, const char* name, const char* description,
                  const char* what, std::shared_ptr<EvaluationFlags> flags,
                  absl::Status (*run)(const EvaluationFlags&, Session&),
                  Session& session) {
  CLI::App* child = verb.add_subcommand(name, description);
  child->add_option("NAME", flags->name, what)->required();
  child->callback([flags, run, &session] {
    session.model = client::ModelIdOf(flags->name);
    session.command = [flags, run, &session] { return run(*flags, session); };
  });
  return child;
}

}  // namespace

void AddEvaluationsCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand(
      "evaluations",
      "Lists, records and deletes what was measured of bit maps");
  verb->require_subcommand(1);
  SetHelp(*verb, {.examples = {"ratequant evaluations list --help",
                               "ratequant evaluations record --help",
                               "ratequant evaluations delete --help"}});
  auto flags = std::make_shared<EvaluationFlags>();
  CLI::App* list = AddVerb(
      *verb, "list", "Lists evaluations of a model's bit maps or of one",
      "A model, or models/MODEL/bitMaps/ID", flags, List, session);
  SetHelp(*list, {.examples = {"ratequant evaluations list Qwen/Qwen3-8B"}});
  CLI::App* record = AddVerb(*verb, "record", "Attaches a measurement to a map",
                             "models/MODEL/bitMaps/ID", flags, Record, session);
  record
      ->add_option("--file", flags->file,
                   "The Evaluation message in JSON; - is standard input")
      ->required()
      ->option_text("FILE (required)");
  SetHelp(
      *record,
      {.details = "python -m ratequant evaluate --record measures and "
                  "records in one go.",
       .examples = {"ratequant evaluations record "
                    "models/Qwen--Qwen3-8B/bitMaps/3f2a... --file e.json"}});
  CLI::App* remove =
      AddVerb(*verb, "delete", "Deletes an evaluation",
              "models/MODEL/bitMaps/ID/evaluations/ID", flags, Delete, session);
  SetHelp(*remove,
          {.examples = {"ratequant evaluations delete "
                        "models/m/bitMaps/3f2a.../evaluations/91c0..."}});
}

}  // namespace ratequant::cli
