#ifndef RATEQUANT_CLIENTS_CLI_USAGE_MESSAGE_H_
#define RATEQUANT_CLIENTS_CLI_USAGE_MESSAGE_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace ratequant::cli {

// The verb that was being read, as far as it was known.
const CLI::App& DeepestVerb(const CLI::App& app);

// "bitmap get"; empty for the command itself.
std::string VerbName(const CLI::App& verb);

// A mistake that the parser found.
struct UsageMessage {
  std::string text =
      {};  // names the word, what is taken, and where it came from
  std::string verb = {};  // whose help tells more; empty for the command's
};

// `words` are the command line's; a value that isn't in them came from the
// environment or the config file, and the text says which.
UsageMessage ExplainUsage(const CLI::Error& error, const CLI::App& app,
                          const std::vector<std::string>& words);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_USAGE_MESSAGE_H_
