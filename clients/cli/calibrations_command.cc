#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/calibration_view.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/find_calibration.h"
#include "clients/cli/help.h"
#include "clients/cli/value_checks.h"
#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

struct ListFlags {
  std::string model;
  std::string quantizer;
  std::string since;
  std::string before;
};

struct CalibrationFlags {
  std::string model;
  std::string name;
  bool force = false;
};

absl::StatusOr<std::vector<std::string>> ModelsToList(const std::string& model,
                                                      Session& session) {
  if (!model.empty()) return std::vector<std::string>{model};
  auto models = session.client().ListModels();
  if (!models.ok()) return models.status();
  std::vector<std::string> names;
  for (const v1::Model& m : *models) names.push_back(m.name());
  return names;
}

absl::StatusOr<v1::ListCalibrationsRequest> FilterOf(const ListFlags& flags) {
  v1::ListCalibrationsRequest filter;
  if (!flags.quantizer.empty()) {
    auto quantizer = client::QuantizerFromText(flags.quantizer);
    if (!quantizer.ok()) return quantizer.status();
    *filter.mutable_quantizer() = *std::move(quantizer);
  }
  // The options' check has turned them into seconds.
  int64_t seconds = 0;
  if (absl::SimpleAtoi(flags.since, &seconds)) {
    filter.mutable_create_time_from()->set_seconds(seconds);
  }
  if (absl::SimpleAtoi(flags.before, &seconds)) {
    filter.mutable_create_time_before()->set_seconds(seconds);
  }
  return filter;
}

absl::Status ListCalibrations(const ListFlags& flags, Session& session) {
  auto filter = FilterOf(flags);
  if (!filter.ok()) return UsageError(filter.status().message());
  auto models = ModelsToList(flags.model, session);
  if (!models.ok()) return models.status();
  std::vector<v1::Calibration> all;
  for (const std::string& name : *models) {
    auto calibrations = session.client().ListCalibrations(name, *filter);
    if (!calibrations.ok()) return calibrations.status();
    all.insert(all.end(), calibrations->begin(), calibrations->end());
  }
  if (session.json) {
    v1::ListCalibrationsResponse response;
    for (v1::Calibration& calibration : all) {
      *response.add_calibrations() = std::move(calibration);
    }
    return session.PrintJson(response);
  }
  if (all.empty()) {
    const bool filtered = !flags.quantizer.empty() || !flags.since.empty() ||
                          !flags.before.empty();
    session.Print(
        filtered
            ? "no calibration matches; see all: ratequant calibrations list\n"
            : "no calibration is stored yet; see: ratequant calibrate "
              "--help\n");
    return absl::OkStatus();
  }
  session.Print(RenderCalibrationList(all, session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status GetCalibration(const CalibrationFlags& flags, Session& session) {
  auto name = FindCalibration(session.client(), flags.model,
                              flags.name.empty() ? "latest" : flags.name);
  if (!name.ok()) return name.status();
  auto calibration = session.client().GetCalibration(flags.model, *name);
  if (!calibration.ok()) return calibration.status();
  if (session.json) return session.PrintJson(*calibration);
  session.Print(RenderCalibration(*calibration, session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status DeleteCalibration(const CalibrationFlags& flags,
                               Session& session) {
  if (client::ResourceId(flags.name) == "latest") {
    return UsageError(
        "'latest' may mean another calibration by the time it is deleted; "
        "give the id");
  }
  auto name = FindCalibration(session.client(), flags.model, flags.name);
  if (!name.ok()) return name.status();
  absl::Status deleted =
      session.client().DeleteCalibration(flags.model, *name, flags.force);
  if (!deleted.ok()) return deleted;
  if (session.json) {
    v1::DeleteCalibrationRequest done;
    done.set_name(*name);
    return session.PrintJson(done);
  }
  session.Print(absl::StrCat("deleted ", *name, "\n"));
  return absl::OkStatus();
}

// Takes the model from a whole resource name, and refuses to guess.
void ChooseModel(CalibrationFlags& flags, Session& session) {
  session.model =
      flags.model.empty() ? client::ModelIdOf(flags.name) : flags.model;
  if (flags.name.empty() && flags.model.empty()) {
    throw CLI::ValidationError(
        "give --model MODEL for its newest calibration, or a name");
  }
}

void AddNameOptions(CLI::App& verb, CalibrationFlags* flags) {
  verb.add_option("--model", flags->model,
                  "The model; not needed with a whole name")
      ->option_text("MODEL");
}

}  // namespace

void AddCalibrationsCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand("calibrations",
                                      "Lists, shows and deletes calibrations");
  verb->require_subcommand(1);
  SetHelp(*verb, {.examples = {"ratequant calibrations list --help",
                               "ratequant calibrations get --help",
                               "ratequant calibrations delete --help"}});

  auto list_flags = std::make_shared<ListFlags>();
  CLI::App* list =
      verb->add_subcommand("list", "Lists calibrations, newest first");
  list->add_option("--model", list_flags->model,
                   "Only this model's; all models' when left out")
      ->option_text("MODEL");
  list->add_option("--quantizer", list_flags->quantizer,
                   "Only those that measured this quantizer")
      ->option_text("NAME[:PARAMETER=VALUE,...]");
  list->add_option("--since", list_flags->since,
                   "Only those stored at this time (UTC) or later")
      ->transform(UniversalTime())
      ->option_text("TIME");
  list->add_option("--before", list_flags->before,
                   "Only those stored before this time (UTC)")
      ->transform(UniversalTime())
      ->option_text("TIME");
  SetHelp(*list,
          {.examples = {"ratequant calibrations list",
                        "ratequant calibrations list --model Qwen/Qwen3-8B",
                        "ratequant calibrations list --quantizer kivi --since "
                        "2026-11-01"}});
  list->callback([list_flags, &session] {
    session.model = list_flags->model;
    session.command = [list_flags, &session] {
      return ListCalibrations(*list_flags, session);
    };
  });

  auto get_flags = std::make_shared<CalibrationFlags>();
  CLI::App* get = verb->add_subcommand(
      "get", "Shows a calibration; with --json all of it, tables included");
  get->add_option("NAME", get_flags->name,
                  "models/MODEL/calibrations/ID, an id, or its first digits; "
                  "the newest when left out");
  AddNameOptions(*get, get_flags.get());
  SetHelp(
      *get,
      {.examples = {"ratequant calibrations get --model Qwen/Qwen3-8B",
                    "ratequant calibrations get 3f2a91 --model Qwen/Qwen3-8B",
                    "ratequant calibrations get --model Qwen/Qwen3-8B --json > "
                    "calibration.json"}});
  get->callback([get_flags, &session] {
    ChooseModel(*get_flags, session);
    session.command = [get_flags, &session] {
      return GetCalibration(*get_flags, session);
    };
  });

  auto delete_flags = std::make_shared<CalibrationFlags>();
  CLI::App* remove = verb->add_subcommand(
      "delete", "Deletes a calibration and the bit maps solved from it");
  remove
      ->add_option("NAME", delete_flags->name,
                   "models/MODEL/calibrations/ID, an id, or its first digits")
      ->required();
  AddNameOptions(*remove, delete_flags.get());
  remove->add_flag("--force", delete_flags->force,
                   "Also when bit maps of it have evaluations, which then go "
                   "too");
  SetHelp(*remove,
          {.examples = {
               "ratequant calibrations delete 3f2a91 --model Qwen/Qwen3-8B"}});
  remove->callback([delete_flags, &session] {
    ChooseModel(*delete_flags, session);
    session.command = [delete_flags, &session] {
      return DeleteCalibration(*delete_flags, session);
    };
  });
}

}  // namespace ratequant::cli
