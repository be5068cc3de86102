#include "clients/cli/command_tree.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

OptionDescription DescribeOption(const CLI::Option& option) {
  OptionDescription result;
  result.argument = option.get_positional();
  if (result.argument) result.names.push_back(option.get_name(true, false));
  for (const std::string& name : option.get_snames()) {
    result.names.push_back(absl::StrCat("-", name));
  }
  for (const std::string& name : option.get_lnames()) {
    result.names.push_back(absl::StrCat("--", name));
  }
  if (option.get_items_expected_max() > 0) {
    const std::string& text = option.get_option_text();
    result.value = text.empty() ? option.get_type_name() : text;
  }
  result.choices = ChoicesOf(option);
  result.description = option.get_description();
  result.environment = option.get_envname();
  return result;
}

VerbDescription DescribeVerb(const CLI::App& verb, const std::string& path) {
  VerbDescription result;
  result.path = path;
  result.name = verb.get_name();
  result.description = verb.get_description();
  const std::string footer = verb.get_footer();
  result.details = footer.substr(0, footer.find(kExitCodeHelp));
  for (const CLI::Option* option : verb.get_options()) {
    result.options.push_back(DescribeOption(*option));
  }
  for (const CLI::App* child : verb.get_subcommands({})) {
    result.verbs.push_back(DescribeVerb(
        *child,
        absl::StrCat(path, path.empty() ? "" : " ", child->get_name())));
  }
  return result;
}

void AddAll(const VerbDescription& verb,
            std::vector<const VerbDescription*>* all) {
  all->push_back(&verb);
  for (const VerbDescription& child : verb.verbs) AddAll(child, all);
}

}  // namespace

VerbDescription DescribeCommand(const CLI::App& app) {
  return DescribeVerb(app, "");
}

std::vector<const VerbDescription*> AllVerbs(const VerbDescription& command) {
  std::vector<const VerbDescription*> all;
  AddAll(command, &all);
  return all;
}

}  // namespace ratequant::cli
