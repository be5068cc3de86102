#include "services/common/config.h"

#include <cstdlib>
#include <istream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace ratequant {
namespace {

bool InEnvironment(const std::string& variable) {
  const char* value = std::getenv(variable.c_str());
  return value != nullptr && *value != '\0';
}

// A file that leaves out what the environment says: CLI11 by itself would let
// the file win.
class FileBelowEnvironment : public CLI::ConfigTOML {
 public:
  explicit FileBelowEnvironment(std::string program)
      : program_(std::move(program)) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
    std::vector<CLI::ConfigItem> items = CLI::ConfigTOML::from_config(in);
    std::erase_if(items, [this](const CLI::ConfigItem& item) {
      return item.parents.empty() &&
             InEnvironment(EnvironmentName(program_, item.name));
    });
    return items;
  }

 private:
  const std::string program_;
};

bool IsSetting(const CLI::Option& option, const CLI::App& app) {
  return !option.get_lnames().empty() && option.get_configurable() &&
         &option != app.get_help_ptr() && &option != app.get_config_ptr();
}

}  // namespace

std::string EnvironmentName(const std::string& program,
                            const std::string& option) {
  return absl::AsciiStrToUpper(absl::StrReplaceAll(
      option.empty() ? program : absl::StrCat(program, "-", option),
      {{"-", "_"}}));
}

void AddConfigSources(CLI::App& app) {
  const std::string variable = EnvironmentName(app.get_name(), "config");
  const bool named = InEnvironment(variable);
  app.config_formatter(std::make_shared<FileBelowEnvironment>(app.get_name()));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config("--config", named ? std::getenv(variable.c_str()) : "",
                 absl::StrCat("TOML file with any of these options; the "
                              "environment (or ",
                              variable, ") and flags win"),
                 named)
      ->type_name("FILE");
  for (CLI::Option* option : app.get_options()) {
    if (!IsSetting(*option, app)) continue;
    option->envname(EnvironmentName(app.get_name(), option->get_lnames()[0]));
  }
}

std::string ExplainConfigError(const CLI::App& app, const CLI::Error& error) {
  const std::string what = error.what();
  const bool key_unknown =
      error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ConfigError);
  const auto files = app.get_config_ptr() == nullptr
                         ? std::vector<std::string>()
                         : app.get_config_ptr()->as<std::vector<std::string>>();
  if (key_unknown && !files.empty()) {
    const std::string key = what.substr(what.rfind(' ') + 1);
    return absl::StrCat(files[0], ": '", key,
                        "' isn't a key of this program's configuration");
  }
  for (const CLI::Option* option : app.get_options()) {
    if (!IsSetting(*option, app)) continue;
    const std::string variable =
        EnvironmentName(app.get_name(), option->get_lnames()[0]);
    if (absl::StartsWith(what, option->get_name() + ":") &&
        InEnvironment(variable)) {
      return absl::StrCat(what, " (from the environment's ", variable,
                          " unless a flag says otherwise)");
    }
  }
  return what;
}

}  // namespace ratequant
