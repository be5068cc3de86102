#include "clients/cli/man_page.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "clients/cli/config_file.h"
#include "clients/cli/exit_code.h"

namespace ratequant::cli {
namespace {

// One line of text that troff takes for nothing else.
std::string Escaped(absl::string_view line) {
  const std::string text =
      absl::StrReplaceAll(line, {{"\\", "\\e"}, {"-", "\\-"}, {"\n", " "}});
  const bool control = !text.empty() && (text[0] == '.' || text[0] == '\'');
  return absl::StrCat(control ? "\\&" : "", text);
}

// Lines as they are.
std::string Verbatim(absl::string_view text) {
  std::string page = ".nf\n";
  for (absl::string_view line :
       absl::StrSplit(absl::StripAsciiWhitespace(text), '\n')) {
    absl::StrAppend(&page, Escaped(line), "\n");
  }
  return absl::StrCat(page, ".fi\n");
}

std::string Option(const OptionDescription& option) {
  std::string heading =
      absl::StrCat("\\fB", Escaped(absl::StrJoin(option.names, ", ")), "\\fR");
  if (!option.argument && !option.value.empty()) {
    absl::StrAppend(&heading, " \\fI", Escaped(option.value), "\\fR");
  }
  std::string page =
      absl::StrCat(".TP\n", heading, "\n", Escaped(option.description), "\n");
  if (!option.choices.empty()) {
    absl::StrAppend(&page, ".br\nOne of: ",
                    Escaped(absl::StrJoin(option.choices, ", ")), ".\n");
  }
  return page;
}

std::string Synopsis(const VerbDescription& verb) {
  std::string line = absl::StrCat("ratequant ", verb.path);
  for (const OptionDescription& option : verb.options) {
    if (option.argument) absl::StrAppend(&line, " ", option.names[0]);
  }
  return line;
}

std::string Verb(const VerbDescription& verb) {
  std::string page = absl::StrCat(".SS \"", Escaped(Synopsis(verb)), "\"\n",
                                  Escaped(verb.description), ".\n");
  for (const OptionDescription& option : verb.options) {
    const bool help = option.names.back() == "--help";
    if (!help) page += Option(option);
  }
  if (!verb.details.empty()) {
    absl::StrAppend(&page, ".PP\n", Verbatim(verb.details));
  }
  return page;
}

std::string EnvironmentSection(const VerbDescription& command) {
  std::string page = ".SH ENVIRONMENT\n";
  for (const OptionDescription& option : command.options) {
    if (option.environment.empty()) continue;
    absl::StrAppend(&page, ".TP\n\\fB", Escaped(option.environment),
                    "\\fR\nAs ", Escaped(option.names.back()),
                    ", which goes before it.\n");
  }
  return page;
}

}  // namespace

std::string ManPage(const VerbDescription& command, absl::string_view version) {
  std::string page = absl::StrCat(
      ".TH RATEQUANT 1 \"\" \"ratequant ", Escaped(version),
      "\" \"User Commands\"\n"
      ".SH NAME\nratequant \\- mixed\\-precision KV\\-cache quantization\n"
      ".SH SYNOPSIS\n.B ratequant\n[\\fIoptions\\fR] \\fIverb\\fR "
      "[\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n",
      Escaped(command.description), "\n.SH OPTIONS\n",
      "These go before or after the verb.\n");
  for (const OptionDescription& option : command.options) {
    page += Option(option);
  }
  page += ".SH VERBS\n";
  for (const VerbDescription* verb : AllVerbs(command)) {
    if (verb != &command) page += Verb(*verb);
  }
  absl::StrAppend(
      &page, EnvironmentSection(command), ".SH FILES\n.TP\n\\fI",
      Escaped(kConfigFileHelp), "\\fR\n",
      "Global options by name, in TOML. Flags and the environment "
      "go before it.\n",
      ".SH EXIT STATUS\n",
      Verbatim(absl::StrReplaceAll(kExitCodeHelp, {{"Exit codes:\n", ""}})));
  return page;
}

}  // namespace ratequant::cli
