#include "clients/cli/help.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/text_style.h"

namespace ratequant::cli {
namespace {

constexpr int kColumns = 100;
constexpr int kNameColumns = 34;

// "  name    description", the description wrapped to its own column.
std::string Entry(const std::string& name, const std::string& description) {
  std::string text = absl::StrCat("  ", name);
  int column = DisplayWidth(text);
  if (column >= kNameColumns) {
    text += "\n";
    column = 0;
  }
  text += std::string(kNameColumns - column, ' ');
  column = kNameColumns;
  bool first = true;
  for (absl::string_view word : absl::StrSplit(description, ' ')) {
    int width = DisplayWidth(word);
    if (!first && column + 1 + width > kColumns) {
      absl::StrAppend(&text, "\n", std::string(kNameColumns, ' '));
      column = kNameColumns;
      first = true;
    }
    if (!first) text += " ";
    absl::StrAppend(&text, word);
    column += width + (first ? 0 : 1);
    first = false;
  }
  return text + "\n";
}

// Lines with the names of the command's own options.
std::string GlobalOptions(const CLI::App& verb) {
  const CLI::App* command = &verb;
  while (command->get_parent() != nullptr) command = command->get_parent();
  std::string lines;
  int column = kColumns;
  for (const CLI::Option* option : command->get_options()) {
    const std::string name = absl::StrCat(" --", option->get_lnames().front());
    if (name == " --help" || name == " --version") continue;
    if (column + static_cast<int>(name.size()) > kColumns) {
      lines += "\n ";
      column = 1;
    }
    lines += name;
    column += static_cast<int>(name.size());
  }
  return lines;
}

}  // namespace

void SetHelp(CLI::App& verb, const Help& help) {
  std::string text;
  if (!help.details.empty()) absl::StrAppend(&text, help.details, "\n\n");
  absl::StrAppend(&text, "Examples:\n");
  for (const std::string& example : help.examples) {
    absl::StrAppend(&text, "  ", example, "\n");
  }
  absl::StrAppend(
      &text, "\n", kExitCodeHelp,
      "\nGlobal options, before or after the verb (see ratequant --help):",
      GlobalOptions(verb));
  verb.footer(text);
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode mode) const {
  return absl::StrReplaceAll(
      CLI::Formatter::make_help(app, std::move(name), mode),
      {{"\n\n\n", "\n\n"}});
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return absl::StrCat(app->get_description(), "\n\n");
}

std::string HelpFormatter::make_option(const CLI::Option* option,
                                       bool is_positional) const {
  std::string name = make_option_name(option, is_positional);
  if (!is_positional && !option->get_option_text().empty()) {
    absl::StrAppend(&name, " ", option->get_option_text());
  }
  return Entry(name, option->get_description());
}

std::string HelpFormatter::make_subcommand(const CLI::App* verb) const {
  return Entry(verb->get_name(), verb->get_description());
}

}  // namespace ratequant::cli
