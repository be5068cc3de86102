#ifndef RATEQUANT_CLIENTS_CLI_MAN_PAGE_H_
#define RATEQUANT_CLIENTS_CLI_MAN_PAGE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "clients/cli/command_tree.h"

namespace ratequant::cli {

// The manual page ratequant(1), in man's macros: every verb with its options,
// explanations and examples.
std::string ManPage(const VerbDescription& command, absl::string_view version);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_MAN_PAGE_H_
