// What the command gives to shells and readers: completions as bash, zsh and
// fish run them, the manual page, YAML, and what it takes from files.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "clients/cli/yaml_output.h"
#include "nlohmann/json.hpp"
#include "tests/clients/process.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::StartsWith;

// What a shell prints that runs `script` on our completion. Skips the test when
// there is no such shell.
class CompletionTest : public ::testing::Test {
 protected:
  void Load(const std::string& shell) {
    program_ = absl::StrCat("/usr/bin/", shell);
    if (!std::filesystem::exists(program_)) GTEST_SKIP() << "no " << shell;
    const ProcessResult completion = RunRateQuant({"completion", shell});
    ASSERT_EQ(completion.exit_code, 0) << completion.err;
    std::ofstream(file_) << completion.out;
  }

  std::vector<std::string> Lines(const std::string& script) {
    const ProcessResult result =
        Process({program_, "-c", absl::StrCat("source ", file_, "\n", script)},
                {.environment = {{"PATH", "/usr/bin:/bin"},
                                 {"HOME", folder_.path()}}})
            .Wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return absl::StrSplit(result.out, '\n', absl::SkipEmpty());
  }

  const TempDir folder_;
  const std::string file_ = folder_.File("completion");
  std::string program_;
};

class BashTest : public CompletionTest {
 protected:
  void SetUp() override { Load("bash"); }

  // `words` ends with the one to complete.
  std::vector<std::string> Complete(const std::string& words) {
    return Lines(
        absl::StrCat("COMP_WORDS=(", words,
                     ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
                     "_ratequant\nprintf '%s\\n' \"${COMPREPLY[@]}\""));
  }
};

TEST_F(BashTest, CompletesVerbsOptionsAndValues) {
  EXPECT_THAT(Complete("ratequant ca"),
              ElementsAre("calibrate", "calibrations"));
  EXPECT_THAT(Complete("ratequant bitmap ''"), Contains("get"));
  EXPECT_THAT(Complete("ratequant bitmap get --effective"),
              ElementsAre("--effective-bits"));
  EXPECT_THAT(Complete("ratequant bitmap get --objective m"),
              ElementsAre("measured"));
  // Global options go anywhere, and their values aren't verbs.
  EXPECT_THAT(Complete("ratequant --output json bitmap get --endp"),
              ElementsAre("--endpoint"));
  EXPECT_THAT(Complete("ratequant models --output y"), ElementsAre("yaml"));
  EXPECT_THAT(Complete("ratequant curve --model ''"), IsEmpty());
  EXPECT_THAT(Complete("ratequant completion f"), ElementsAre("fish"));
  EXPECT_THAT(Lines("complete -p ratequant"),
              ElementsAre("complete -o default -F _ratequant ratequant"));
}

// Options that a help text describes, and verbs that it lists.
std::vector<std::string> Described(const std::string& help) {
  std::vector<std::string> words;
  for (absl::string_view line : absl::StrSplit(help, '\n')) {
    // Examples come after, and begin like verbs.
    if (absl::StartsWith(line, "Examples:")) break;
    const bool entry =
        line.size() > 2 && line.substr(0, 2) == "  " && line[2] != ' ';
    if (!entry) continue;
    const std::vector<std::string> entry_words =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    // "-h,--help"; an argument is in capitals, and nothing a shell completes.
    for (absl::string_view name : absl::StrSplit(entry_words[0], ',')) {
      if (!absl::ascii_isupper(name[0])) words.emplace_back(name);
    }
  }
  return words;
}

// Help is the parser's own, so nothing that is taken can be left out.
TEST_F(BashTest, CompletesAllThatHelpDescribesAndTheManualHasIt) {
  const std::string manual =
      absl::StrReplaceAll(RunRateQuant({"man"}).out, {{"\\-", "-"}});
  std::vector<std::string> paths = {""};
  size_t options = 0;
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string path = paths[i];
    SCOPED_TRACE(absl::StrCat("ratequant ", path));
    std::vector<std::string> help =
        absl::StrSplit(path, ' ', absl::SkipEmpty());
    help.push_back("--help");
    const std::vector<std::string> completed =
        Complete(absl::StrCat("ratequant ", path, " ''"));
    size_t section = 0;
    if (!path.empty()) {
      section = manual.find(absl::StrCat(".SS \"ratequant ", path));
      ASSERT_NE(section, std::string::npos);
    }
    const std::string page =
        manual.substr(section, manual.find("\n.S", section + 1) - section);
    for (const std::string& word : Described(RunRateQuant(help).out)) {
      EXPECT_THAT(completed, Contains(word));
      if (word[0] != '-') {
        paths.push_back(path.empty() ? word : absl::StrCat(path, " ", word));
      } else if (word != "-h" && word != "--help") {
        EXPECT_THAT(path.empty() ? manual : page, HasSubstr(word));
        ++options;
      }
    }
  }
  EXPECT_THAT(paths, IsSupersetOf({"bitmap get", "calibrations list", "doctor",
                                   "evaluations record", "policy create"}));
  EXPECT_GE(options, 100u);
}

class ZshTest : public CompletionTest {
 protected:
  // Completion functions run in the line editor alone; what ours calls of it is
  // replaced by printing.
  void SetUp() override {
    Load("zsh");
    if (IsSkipped()) return;
    const std::string text = RunRateQuant({"completion", "zsh"}).out;
    std::ofstream(file_)
        << "compdef() { : }\n_files() { print files }\n"
           "compadd() { shift; print -l -- $@ }\n"
           "_describe() { [[ $1 == -o ]] && shift; print -l -- ${(P)2} }\n"
        << text;
  }

  std::vector<std::string> Complete(const std::string& words) {
    return Lines(
        absl::StrCat("words=(", words, ")\nCURRENT=${#words}\n_ratequant"));
  }
};

TEST_F(ZshTest, CompletesVerbsOptionsAndValues) {
  EXPECT_THAT(Complete("ratequant ''"),
              Contains("models:Lists the models that are calibrated"));
  EXPECT_THAT(Complete("ratequant --output json bitmap get ''"),
              Contains(StartsWith("--effective-bits:")));
  EXPECT_THAT(
      Complete("ratequant bitmap get --objective ''"),
      ElementsAre("attention-output", "loss-projected", "measured", "paper"));
  EXPECT_THAT(Complete("ratequant calibrate --text ''"), ElementsAre("files"));
}

class FishTest : public CompletionTest {
 protected:
  void SetUp() override { Load("fish"); }

  std::vector<std::string> Complete(const std::string& line) {
    return Lines(absl::StrCat("complete -C '", line, "'"));
  }
};

TEST_F(FishTest, CompletesVerbsOptionsAndValues) {
  EXPECT_THAT(Complete("ratequant mod"),
              ElementsAre("models\tLists the models that are calibrated"));
  EXPECT_THAT(Complete("ratequant --output json bitmap get --effective"),
              ElementsAre(StartsWith("--effective-bits\t")));
  EXPECT_THAT(Complete("ratequant bitmap get --objective m"),
              Contains(StartsWith("measured")));
}

TEST(CompletionUsageTest, AnUnknownShellIsNamed) {
  const ProcessResult result = RunRateQuant({"completion", "csh"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("'csh' is not one of bash, fish, zsh"));
}

TEST(ManPageTest, IsCleanTroffAndHasEveryVerbAndItsExamples) {
  const ProcessResult man = RunRateQuant({"man"});
  ASSERT_EQ(man.exit_code, 0);
  if (!std::filesystem::exists("/usr/bin/groff")) GTEST_SKIP() << "no groff";
  const ProcessResult page =
      Process({"/usr/bin/groff", "-man", "-ww", "-Tascii", "-P-cbou"},
              {.environment = {{"PATH", "/usr/bin:/bin"}}, .input = man.out})
          .Wait();
  EXPECT_EQ(page.exit_code, 0);
  EXPECT_EQ(page.err, "");  // -ww: every warning there is
  for (const char* text :
       {"ratequant bitmap get", "--effective-bits",
        "ratequant completion SHELL", "ratequant calibrate --model-path",
        "RATEQUANT_ENDPOINT", "EXIT STATUS", "config.toml",
        "One of: json, table, yaml."}) {
    EXPECT_THAT(page.out, HasSubstr(text));
  }
}

TEST(YamlTest, KeepsNamesOrderAndTypes) {
  const auto yaml = cli::JsonToYaml(
      R"({"name": "a: \"b\"", "width": [2, 3], "none": [], "empty": {},
          "true": true, "nested": {"x.y": 0.5, "list": [{"a": 1, "b": "2"},
          [1], [[1, 2], []]]}})");
  ASSERT_TRUE(yaml.ok()) << yaml.status();
  EXPECT_EQ(*yaml,
            "---\n"
            "name: \"a: \\\"b\\\"\"\n"
            "width: [2,3]\n"
            "none: []\n"
            "empty: {}\n"
            "\"true\": true\n"
            "nested:\n"
            "  \"x.y\": 0.5\n"
            "  list:\n"
            "    - a: 1\n"
            "      b: \"2\"\n"
            "    - [1]\n"
            "    - - [1,2]\n"
            "      - []\n");
  EXPECT_TRUE(absl::IsInternal(cli::JsonToYaml("{").status()));
}

TEST(OutputFormatTest, EveryFormatSaysTheSame) {
  const auto json =
      nlohmann::json::parse(RunRateQuant({"version", "--output", "json"}).out);
  EXPECT_EQ(json,
            nlohmann::json::parse(RunRateQuant({"--json", "version"}).out));
  const std::string version = json["version"];
  EXPECT_THAT(RunRateQuant({"version", "--output", "yaml"}).out,
              StartsWith(absl::StrCat("---\nversion: \"", version, "\"\n")));
  EXPECT_THAT(RunRateQuant({"version", "--output", "table"}).out,
              StartsWith(absl::StrCat("ratequant ", version)));
  const ProcessResult wrong = RunRateQuant({"version", "--output", "xml"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("'xml' is not one of json, table, yaml"));
}

class ConfigFileTest : public ::testing::Test {
 protected:
  // The endpoint that is asked, from the error that nobody is there.
  static std::string Err(const std::vector<std::string>& arguments,
                         const std::map<std::string, std::string>& variables) {
    return RunRateQuant(arguments, {.environment = variables}).err;
  }

  const TempDir folder_;
};

TEST_F(ConfigFileTest, FlagsGoBeforeTheEnvironmentAndThatBeforeTheFile) {
  const std::string file = folder_.File("ratequant.toml");
  std::ofstream(file) << "endpoint = \"127.0.0.1:7\"\ntimeout = 5\n";
  EXPECT_THAT(Err({"models", "--config", file}, {}), HasSubstr("127.0.0.1:7:"));
  EXPECT_THAT(Err({"models"}, {{"RATEQUANT_CONFIG", file}}),
              HasSubstr("127.0.0.1:7:"));
  EXPECT_THAT(Err({"models", "--config", file},
                  {{"RATEQUANT_ENDPOINT", "127.0.0.1:8"}}),
              HasSubstr("127.0.0.1:8:"));
  EXPECT_THAT(Err({"models", "--config", file, "--endpoint", "127.0.0.1:9"},
                  {{"RATEQUANT_ENDPOINT", "127.0.0.1:8"}}),
              HasSubstr("127.0.0.1:9:"));
}

TEST_F(ConfigFileTest, IsFoundWhereConfigurationIsKept) {
  std::filesystem::create_directories(folder_.File(".config/ratequant"));
  std::ofstream(folder_.File(".config/ratequant/config.toml"))
      << "endpoint = \"127.0.0.1:7\"\n";
  EXPECT_THAT(Err({"models"}, {{"HOME", folder_.path()}}),
              HasSubstr("127.0.0.1:7:"));
  EXPECT_THAT(Err({"models"}, {{"XDG_CONFIG_HOME", folder_.File(".config")}}),
              HasSubstr("127.0.0.1:7:"));
  EXPECT_EQ(RunRateQuant({"version", "--output", "json"},
                         {.environment = {{"HOME", folder_.path()}}})
                .exit_code,
            0);
}

TEST_F(ConfigFileTest, WhatIsNotAGlobalOptionAndItsValueIsAMistake) {
  const std::string file = folder_.File("ratequant.toml");
  EXPECT_THAT(Err({"version", "--config", file}, {}), HasSubstr(file));
  EXPECT_THAT(Err({"version"}, {{"RATEQUANT_CONFIG", file}}), HasSubstr(file));
  std::ofstream(file) << "endpont = \"127.0.0.1:7\"\n";
  EXPECT_THAT(Err({"version", "--config", file}, {}), HasSubstr("endpont"));
  std::ofstream(file) << "[bitmap]\nmodel = \"m\"\n";
  EXPECT_THAT(Err({"version", "--config", file}, {}),
              HasSubstr("it has the section 'bitmap'"));
  std::ofstream(file) << "endpoint = \"127.0.0.1:7\n";
  EXPECT_THAT(Err({"version", "--config", file}, {}),
              HasSubstr("the value of 'endpoint' has no closing quote"));
  // A value says where it is from.
  std::ofstream(file) << "timeout = \"soon\"\n";
  EXPECT_THAT(Err({"version", "--config", file}, {}),
              HasSubstr(absl::StrCat("'soon' is not a number of seconds above "
                                     "0 (from ",
                                     file, ")")));
  EXPECT_THAT(Err({"version"}, {{"RATEQUANT_TLS", "maybe"}}),
              HasSubstr("'maybe' is not true or false (from RATEQUANT_TLS)"));
}

}  // namespace
}  // namespace ratequant::testing
