#ifndef RATEQUANT_CLIENTS_CLI_EXIT_CODE_H_
#define RATEQUANT_CLIENTS_CLI_EXIT_CODE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ratequant::cli {

// Exit codes of the `ratequant` command. Part of its interface: do not change.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitUnreachable = 4;
inline constexpr int kExitInterrupted = 130;  // as a shell reports SIGINT

// What every verb's help says about them.
inline constexpr char kExitCodeHelp[] =
    "Exit codes:\n"
    "  0    success\n"
    "  1    the server refused or failed, or anything not listed here\n"
    "  2    wrong options or values, or a file that can't be used\n"
    "  3    not found: the model, the calibration or the model path\n"
    "  4    no server reachable, or no answer within --timeout\n"
    "  130  interrupted\n";

// A mistake in the command line, or a file it names that can't be used.
absl::Status UsageError(absl::string_view message);
bool IsUsageError(const absl::Status& status);

// The code for a command that ended with `status`.
int ExitCodeOf(const absl::Status& status);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_EXIT_CODE_H_
