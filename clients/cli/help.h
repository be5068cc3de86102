#ifndef RATEQUANT_CLIENTS_CLI_HELP_H_
#define RATEQUANT_CLIENTS_CLI_HELP_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace ratequant::cli {

// What a verb's help says after its options.
struct Help {
  std::string details = "";
  std::vector<std::string> examples;
};

// Gives the verb `help`, the exit codes and the names of the global options,
// which must all be there already.
void SetHelp(CLI::App& verb, const Help& help);

// Lays help out in 100 columns: names, then descriptions wrapped beside them.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option,
                          bool is_positional) const override;
  std::string make_subcommand(const CLI::App* verb) const override;
};

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_HELP_H_
