#ifndef RATEQUANT_CLIENTS_CLI_COMPLETION_H_
#define RATEQUANT_CLIENTS_CLI_COMPLETION_H_

#include <string>

#include "clients/cli/command_tree.h"

namespace ratequant::cli {

// Scripts that complete the command's verbs, options and values: to be sourced
// by the shell, or put where it looks for completions.
std::string BashCompletion(const VerbDescription& command);
std::string ZshCompletion(const VerbDescription& command);
std::string FishCompletion(const VerbDescription& command);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_COMPLETION_H_
