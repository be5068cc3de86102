#ifndef RATEQUANT_CLIENTS_CLI_COMMAND_TREE_H_
#define RATEQUANT_CLIENTS_CLI_COMMAND_TREE_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace ratequant::cli {

// An option or an argument of a verb.
struct OptionDescription {
  std::vector<std::string> names;    // "--model"; an argument has its own name
  bool argument = false;             // given by its place
  std::string value;                 // "MODEL"; empty for a flag
  std::vector<std::string> choices;  // all values there are; empty: any
  std::string description;
  std::string environment;  // variable it is also read from, or empty
};

// A verb, or the command itself, and what is below it.
struct VerbDescription {
  std::string path;  // "bitmap get"; empty for the command
  std::string name;  // "get"
  std::string description;
  std::string details;  // the rest of its help: explanations and examples
  std::vector<OptionDescription> options;
  std::vector<VerbDescription> verbs;
};

// What the parser knows: completions and the man page are made of it, so that
// they can't say anything else than it takes.
VerbDescription DescribeCommand(const CLI::App& app);

// The verb and all below it, each before its own, depth first.
std::vector<const VerbDescription*> AllVerbs(const VerbDescription& command);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_COMMAND_TREE_H_
