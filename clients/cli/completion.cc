#include "clients/cli/completion.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace ratequant::cli {
namespace {

// In single quotes, for bash and zsh.
std::string Quoted(const std::string& text) {
  return absl::StrCat(
      "'", absl::StrReplaceAll(text, {{"'", "'\\''"}, {"\n", " "}}), "'");
}

std::string FishQuoted(const std::string& text) {
  return absl::StrCat(
      "'",
      absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}, {"\n", " "}}),
      "'");
}

// Options of a verb: its own, and the command's, which go anywhere.
std::vector<OptionDescription> OptionsAt(const VerbDescription& verb,
                                         const VerbDescription& command) {
  std::vector<OptionDescription> options = verb.options;
  if (verb.path.empty()) return options;
  for (const OptionDescription& option : command.options) {
    const bool own = option.names == std::vector<std::string>{"-h", "--help"};
    if (!own) options.push_back(option);
  }
  return options;
}

// What an argument of the verb may be, where there is a list.
std::vector<std::string> ArgumentChoices(const VerbDescription& verb) {
  std::vector<std::string> choices;
  for (const OptionDescription& option : verb.options) {
    if (!option.argument) continue;
    choices.insert(choices.end(), option.choices.begin(), option.choices.end());
  }
  return choices;
}

// Lines of a case that finds the verb: from "path:word" to the longer path.
std::string VerbCases(const VerbDescription& command) {
  std::string cases;
  for (const VerbDescription* verb : AllVerbs(command)) {
    for (const VerbDescription& child : verb->verbs) {
      absl::StrAppend(&cases, "      ",
                      Quoted(absl::StrCat(verb->path, ":", child.name)),
                      ") verb=", Quoted(child.path), " ;;\n");
    }
  }
  return cases;
}

// Lines of a case over "verb:option" for the values that come next: `choose`
// takes the choices, `files` is for any other value.
template <typename Choose>
std::string ValueCases(const VerbDescription& command, const Choose& choose,
                       const std::string& files) {
  std::string cases;
  for (const VerbDescription* verb : AllVerbs(command)) {
    for (const OptionDescription& option : OptionsAt(*verb, command)) {
      if (option.argument || option.value.empty()) continue;
      for (const std::string& name : option.names) {
        absl::StrAppend(&cases, "    ",
                        Quoted(absl::StrCat(verb->path, ":", name)), ") ",
                        option.choices.empty() ? files : choose(option.choices),
                        "; return ;;\n");
      }
    }
  }
  return cases;
}

}  // namespace

std::string BashCompletion(const VerbDescription& command) {
  std::string words;
  for (const VerbDescription* verb : AllVerbs(command)) {
    std::vector<std::string> all = ArgumentChoices(*verb);
    for (const VerbDescription& child : verb->verbs) all.push_back(child.name);
    for (const OptionDescription& option : OptionsAt(*verb, command)) {
      if (option.argument) continue;
      all.insert(all.end(), option.names.begin(), option.names.end());
    }
    absl::StrAppend(&words, "    ", Quoted(verb->path),
                    ") words=", Quoted(absl::StrJoin(all, " ")), " ;;\n");
  }
  const auto choose = [](const std::vector<std::string>& choices) {
    return absl::StrCat("COMPREPLY=($(compgen -W ",
                        Quoted(absl::StrJoin(choices, " ")),
                        " -- \"$current\"))");
  };
  return absl::StrCat(
      "# bash completion for ratequant: source <(ratequant completion bash)\n"
      "_ratequant() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} verb='' words='' i\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
      "    case \"$verb:${COMP_WORDS[i]}\" in\n",
      VerbCases(command),
      "    esac\n"
      "  done\n"
      "  case \"$verb:${COMP_WORDS[COMP_CWORD - 1]}\" in\n",
      ValueCases(command, choose, ":"),
      "  esac\n"
      "  case \"$verb\" in\n",
      words,
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "}\n"
      "complete -o default -F _ratequant ratequant\n");
}

std::string ZshCompletion(const VerbDescription& command) {
  // "name:description", where a colon in the name would end it.
  const auto offer = [](const std::string& name, const std::string& text) {
    return absl::StrCat(
        "\n      ", Quoted(absl::StrCat(
                        absl::StrReplaceAll(name, {{":", "\\:"}}), ":", text)));
  };
  std::string offers;
  for (const VerbDescription* verb : AllVerbs(command)) {
    absl::StrAppend(&offers, "    ", Quoted(verb->path), ") verbs=(");
    for (const VerbDescription& child : verb->verbs) {
      offers += offer(child.name, child.description);
    }
    for (const std::string& choice : ArgumentChoices(*verb)) {
      offers += offer(choice, verb->description);
    }
    offers += ") options=(";
    for (const OptionDescription& option : OptionsAt(*verb, command)) {
      if (option.argument) continue;
      for (const std::string& name : option.names) {
        offers += offer(name, option.description);
      }
    }
    offers += ") ;;\n";
  }
  const auto choose = [](const std::vector<std::string>& choices) {
    return absl::StrCat("compadd -- ", absl::StrJoin(choices, " "));
  };
  return absl::StrCat(
      "#compdef ratequant\n"
      "# zsh completion for ratequant: source <(ratequant completion zsh)\n"
      "_ratequant() {\n"
      "  local verb='' i\n"
      "  local -a verbs options\n"
      "  for ((i = 2; i < CURRENT; ++i)); do\n"
      "    case \"$verb:${words[i]}\" in\n",
      VerbCases(command),
      "    esac\n"
      "  done\n"
      "  case \"$verb:${words[CURRENT - 1]}\" in\n",
      ValueCases(command, choose, "_files"),
      "  esac\n"
      "  case \"$verb\" in\n",
      offers,
      "  esac\n"
      "  [[ ${words[CURRENT]} == -* ]] || _describe verb verbs\n"
      "  _describe -o option options\n"
      "  (( ${#verbs} )) || _files\n"
      "}\n"
      "compdef _ratequant ratequant\n");
}

std::string FishCompletion(const VerbDescription& command) {
  std::string cases, completions;
  for (const VerbDescription* verb : AllVerbs(command)) {
    const std::string here = absl::StrCat(
        "complete -c ratequant -n ",
        FishQuoted(absl::StrCat("__ratequant_at \"", verb->path, "\"")));
    for (const VerbDescription& child : verb->verbs) {
      absl::StrAppend(&cases, "            case ",
                      FishQuoted(absl::StrCat(verb->path, ":", child.name)),
                      "\n                set verb ", FishQuoted(child.path),
                      "\n");
      absl::StrAppend(&completions, here, " -f -a ", child.name, " -d ",
                      FishQuoted(child.description), "\n");
    }
    for (const std::string& choice : ArgumentChoices(*verb)) {
      absl::StrAppend(&completions, here, " -f -a ", choice, "\n");
    }
    for (const OptionDescription& option : OptionsAt(*verb, command)) {
      if (option.argument) continue;
      completions += here;
      for (const std::string& name : option.names) {
        const bool is_long = absl::StartsWith(name, "--");
        absl::StrAppend(&completions, is_long ? " -l " : " -s ",
                        name.substr(is_long ? 2 : 1));
      }
      if (!option.value.empty()) completions += " -r";
      if (!option.choices.empty()) {
        absl::StrAppend(&completions, " -f -a ",
                        FishQuoted(absl::StrJoin(option.choices, " ")));
      }
      absl::StrAppend(&completions, " -d ", FishQuoted(option.description),
                      "\n");
    }
  }
  return absl::StrCat(
      "# fish completion for ratequant: ratequant completion fish | source\n"
      "function __ratequant_at\n"
      "    set -l verb ''\n"
      "    for word in (commandline -opc)[2..-1]\n"
      "        switch \"$verb:$word\"\n",
      cases,
      "        end\n"
      "    end\n"
      "    test \"$verb\" = \"$argv[1]\"\n"
      "end\n",
      completions);
}

}  // namespace ratequant::cli
