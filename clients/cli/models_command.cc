#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/calibration_view.h"
#include "clients/cli/commands.h"
#include "clients/cli/help.h"

namespace ratequant::cli {
namespace {

absl::Status ListModels(const std::string& prefix, Session& session) {
  auto models = session.client().ListModels(prefix);
  if (!models.ok()) return models.status();
  if (session.json) {
    v1::ListModelsResponse response;
    for (v1::Model& model : *models) {
      *response.add_models() = std::move(model);
    }
    return session.PrintJson(response);
  }
  if (models->empty() && !prefix.empty()) {
    session.Print(absl::StrCat("no model's id begins with '", prefix, "'\n"));
    return absl::OkStatus();
  }
  if (models->empty()) {
    session.Print(
        "no model is calibrated yet; see: ratequant calibrate --help\n");
    return absl::OkStatus();
  }
  session.Print(RenderModels(*models, session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status GetModel(const std::string& name, Session& session) {
  auto model = session.client().GetModel(name);
  if (!model.ok()) return model.status();
  if (session.json) return session.PrintJson(*model);
  session.Print(RenderModel(*model, session.terminal().out_style));
  return absl::OkStatus();
}

}  // namespace

void AddModelsCommand(CLI::App& app, Session& session) {
  CLI::App* verb =
      app.add_subcommand("models", "Lists the models that are calibrated");
  SetHelp(*verb, {.examples = {"ratequant models", "ratequant models --json",
                               "ratequant models get Qwen/Qwen3-8B"}});
  verb->require_subcommand(0, 1);
  verb->callback([verb, &session] {
    // With `get` its own callback, which runs first, has chosen.
    if (!verb->get_subcommands().empty()) return;
    session.command = [&session] { return ListModels("", session); };
  });

  auto prefix = std::make_shared<std::string>();
  CLI::App* list = verb->add_subcommand("list", "Lists models (default: all)");
  list->add_option("--prefix", *prefix,
                   "Only models whose id begins so, such as Qwen-- for all of "
                   "Qwen's")
      ->option_text("TEXT");
  SetHelp(*list, {.examples = {"ratequant models list",
                               "ratequant models list --prefix Qwen--"}});
  list->callback([prefix, &session] {
    session.command = [prefix, &session] {
      return ListModels(*prefix, session);
    };
  });

  auto name = std::make_shared<std::string>();
  CLI::App* get = verb->add_subcommand("get", "Shows one model");
  get->add_option("MODEL", *name, "An id or a hub name")->required();
  SetHelp(*get, {.examples = {"ratequant models get SmolLM2-135M-Instruct"}});
  get->callback([name, &session] {
    session.model = *name;
    session.command = [name, &session] { return GetModel(*name, session); };
  });
}

}  // namespace ratequant::cli
