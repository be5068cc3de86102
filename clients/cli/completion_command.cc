#include <memory>
#include <string>

#include "clients/cli/command_tree.h"
#include "clients/cli/commands.h"
#include "clients/cli/completion.h"
#include "clients/cli/help.h"
#include "clients/cli/man_page.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

enum Shell : int { kBash, kZsh, kFish };

std::string Completion(int shell, const VerbDescription& command) {
  switch (shell) {
    case kZsh:
      return ZshCompletion(command);
    case kFish:
      return FishCompletion(command);
    default:
      return BashCompletion(command);
  }
}

}  // namespace

void AddCompletionCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand(
      "completion", "Prints a script that completes verbs, options and values");
  auto shell = std::make_shared<int>(kBash);
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->transform(Choice({{"bash", kBash}, {"zsh", kZsh}, {"fish", kFish}}));
  SetHelp(*verb,
          {.details = "For this shell alone: source <(ratequant completion "
                      "bash), or zsh; in fish,\nratequant completion "
                      "fish | source. For all, write it where the "
                      "shell looks.",
           .examples = {"ratequant completion bash > "
                        "~/.local/share/bash-completion/completions/"
                        "ratequant",
                        "ratequant completion zsh > "
                        "~/.zfunc/_ratequant",
                        "ratequant completion fish > "
                        "~/.config/fish/completions/ratequant.fish"}});
  verb->callback([shell, &app, &session] {
    session.command = [shell, &app, &session] {
      session.Print(Completion(*shell, DescribeCommand(app)));
      return absl::OkStatus();
    };
  });
}

void AddManCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand("man", "Prints the manual page");
  SetHelp(*verb, {.examples = {"ratequant man | man -l -",
                               "ratequant man > "
                               "/usr/local/share/man/man1/ratequant.1"}});
  verb->callback([&app, &session] {
    session.command = [&app, &session] {
      session.Print(ManPage(DescribeCommand(app), RATEQUANT_VERSION));
      return absl::OkStatus();
    };
  });
}

}  // namespace ratequant::cli
