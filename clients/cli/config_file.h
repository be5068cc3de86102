#ifndef RATEQUANT_CLIENTS_CLI_CONFIG_FILE_H_
#define RATEQUANT_CLIENTS_CLI_CONFIG_FILE_H_

#include <string>

#include "CLI/CLI.hpp"

namespace ratequant::cli {

// Where the file is looked for, as help has it.
inline constexpr char kConfigFileHelp[] = "~/.config/ratequant/config.toml";

// Lets the global options also come from a TOML file with their names as keys:
// the one that --config or RATEQUANT_CONFIG names, which must be there, or
// ratequant/config.toml in $XDG_CONFIG_HOME or ~/.config, which needn't. A flag
// goes before the environment, that before the file. A section, a key that is
// no global option, and text without its closing quote are CLI::ConfigError.
// Call once all global options are there.
void AddConfigFile(CLI::App& app);

// The file that is read, or would be.
std::string ConfigFileOf(const CLI::App& app);

// Whether the variable of an option says something.
bool IsInEnvironment(const CLI::Option& option);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_CONFIG_FILE_H_
