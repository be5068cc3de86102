#include "clients/cli/config_file.h"

#include <algorithm>
#include <cstdlib>
#include <istream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ratequant::cli {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A value that begins with a quote which doesn't end it.
bool IsCutOff(const std::string& value) {
  return absl::StartsWith(value, "\"") || absl::StartsWith(value, "'");
}

// Throws CLI::ConfigError for what isn't a global option and its value.
void CheckItem(const CLI::ConfigItem& item, const CLI::Option* option) {
  if (!item.parents.empty()) {
    throw CLI::ConfigError(absl::StrCat("it has the section '",
                                        absl::StrJoin(item.parents, "."),
                                        "', but takes global options alone"));
  }
  if (option == nullptr) {
    throw CLI::ConfigError(absl::StrCat(
        "'", item.name,
        "' is not a global option such as endpoint = ", "\"HOST:PORT\""));
  }
  if (std::any_of(item.inputs.begin(), item.inputs.end(), IsCutOff)) {
    throw CLI::ConfigError(
        absl::StrCat("the value of '", item.name, "' has no closing quote"));
  }
}

// Leaves out what the environment says: CLI11 would let the file win.
class FileBelowEnvironment : public CLI::ConfigTOML {
 public:
  explicit FileBelowEnvironment(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
    std::vector<CLI::ConfigItem> items = CLI::ConfigTOML::from_config(in);
    std::erase_if(items, [this](const CLI::ConfigItem& item) {
      const CLI::Option* option =
          app_.get_option_no_throw(absl::StrCat("--", item.name));
      CheckItem(item, option);
      return IsInEnvironment(*option);
    });
    return items;
  }

 private:
  const CLI::App& app_;
};

// "" where there is no home.
std::string DefaultFile() {
  std::string folder = Variable("XDG_CONFIG_HOME");
  const std::string home = Variable("HOME");
  if (folder.empty() && !home.empty()) folder = absl::StrCat(home, "/.config");
  return folder.empty() ? "" : absl::StrCat(folder, "/ratequant/config.toml");
}

}  // namespace

void AddConfigFile(CLI::App& app) {
  const std::string named = Variable("RATEQUANT_CONFIG");
  app.config_formatter(std::make_shared<FileBelowEnvironment>(app));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config("--config", named.empty() ? DefaultFile() : named,
                 absl::StrCat("TOML file with any of the global options; or "
                              "set RATEQUANT_CONFIG (default ",
                              kConfigFileHelp, ")"),
                 /*config_required=*/!named.empty())
      ->option_text("FILE");
}

std::string ConfigFileOf(const CLI::App& app) {
  return app.get_option("--config")->as<std::string>();
}

bool IsInEnvironment(const CLI::Option& option) {
  return !Variable(option.get_envname().c_str()).empty();
}

}  // namespace ratequant::cli
