#include "clients/cli/usage_message.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "clients/cli/config_file.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

bool IsVerbMissing(const CLI::Error& error) {
  return error.get_exit_code() ==
             static_cast<int>(CLI::ExitCodes::RequiredError) &&
         absl::StrContains(error.what(), "subcommand");
}

// Which verbs there are in place of the one that is missing or unknown.
std::string ExplainVerb(const CLI::App& app, const CLI::App& verb) {
  const std::string known =
      absl::StrJoin(verb.get_subcommands({}), ", ",
                    [](std::string* out, const CLI::App* child) {
                      out->append(child->get_name());
                    });
  const std::vector<std::string> words = app.remaining(/*recurse=*/true);
  if (!words.empty()) {
    return absl::StrCat("'", words[0], "' is not one of ", known);
  }
  const std::string name = VerbName(verb);
  return absl::StrCat("say what to do",
                      name.empty() ? "" : absl::StrCat(" after '", name, "'"),
                      ": ", known);
}

// The option that a message "--name: ..." is about, or null.
const CLI::Option* OptionOf(absl::string_view message, const CLI::App& verb) {
  const std::string name(message.substr(0, message.find(':')));
  for (const CLI::App* app = &verb; app != nullptr; app = app->get_parent()) {
    const CLI::Option* option = app->get_option_no_throw(name);
    if (option != nullptr) return option;
  }
  return nullptr;
}

// " (from RATEQUANT_TIMEOUT)" for a value that the command line doesn't have.
std::string Origin(const CLI::Option& option, const CLI::App& app,
                   const std::vector<std::string>& words) {
  const std::string name = absl::StrCat("--", option.get_lnames().front());
  const bool given =
      std::any_of(words.begin(), words.end(), [&](const std::string& word) {
        return word == name || absl::StartsWith(word, absl::StrCat(name, "="));
      });
  if (given) return "";
  return absl::StrCat(
      " (from ",
      IsInEnvironment(option) ? option.get_envname() : ConfigFileOf(app), ")");
}

std::string MissingValue(const CLI::Option& option) {
  const std::vector<std::string> choices = ChoicesOf(option);
  return absl::StrCat("--", option.get_lnames().front(), " needs a value",
                      choices.empty() ? "" : ": ",
                      absl::StrJoin(choices, ", "));
}

std::string ExplainOption(const CLI::Error& error, const CLI::App& app,
                          const CLI::App& verb,
                          const std::vector<std::string>& words) {
  const std::string message = error.what();
  const CLI::Option* option = OptionOf(message, verb);
  const bool named = option != nullptr && !option->get_lnames().empty();
  if (!named) return message;
  if (error.get_name() == "ArgumentMismatch") return MissingValue(*option);
  return absl::StrCat(message, Origin(*option, app, words));
}

}  // namespace

const CLI::App& DeepestVerb(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return *at;
}

std::string VerbName(const CLI::App& verb) {
  if (verb.get_parent() == nullptr) return "";
  const std::string parent = VerbName(*verb.get_parent());
  return absl::StrCat(parent, parent.empty() ? "" : " ", verb.get_name());
}

UsageMessage ExplainUsage(const CLI::Error& error, const CLI::App& app,
                          const std::vector<std::string>& words) {
  const CLI::App& verb = DeepestVerb(app);
  if (IsVerbMissing(error)) {
    return {.text = ExplainVerb(app, verb), .verb = VerbName(verb)};
  }
  if (error.get_name() == "ConfigError") {
    return {.text = absl::StrCat(ConfigFileOf(app), ": ", error.what())};
  }
  if (error.get_name() == "FileError") {
    return {.text =
                absl::StrCat("there is no config file ", ConfigFileOf(app))};
  }
  return {.text = ExplainOption(error, app, verb, words),
          .verb = VerbName(verb)};
}

}  // namespace ratequant::cli
