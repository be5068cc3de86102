#ifndef RATEQUANT_SERVICES_COMMON_CONFIG_H_
#define RATEQUANT_SERVICES_COMMON_CONFIG_H_

#include <string>

#include "CLI/CLI.hpp"

namespace ratequant {

// "RATEQUANT_ALLOCATOR_DATA_DIR" for option "data-dir" of ratequant-allocator;
// an empty option gives the prefix alone.
std::string EnvironmentName(const std::string& program,
                            const std::string& option);

// Lets every option of `app`, and not of its subcommands, also come from the
// environment (EnvironmentName) and from the TOML file that --config or
// PROGRAM_CONFIG names, whose keys are the options' names without dashes. A
// flag wins over the environment, that over the file, and that over the
// default. A key the file has and the program doesn't is an error. Call once
// all options are there.
void AddConfigSources(CLI::App& app);

// What is wrong, and where the value came from when that isn't a flag.
std::string ExplainConfigError(const CLI::App& app, const CLI::Error& error);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CONFIG_H_
