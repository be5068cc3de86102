#ifndef RATEQUANT_CLIENTS_CLI_COMMAND_LINE_H_
#define RATEQUANT_CLIENTS_CLI_COMMAND_LINE_H_

#include "clients/cli/text_style.h"

namespace ratequant::cli {

// Parses and runs one command line; answers with the exit code (exit_code.h).
int RunCommandLine(int argc, char** argv, const Terminal& terminal);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_COMMAND_LINE_H_
