// What the command says without a server: help, usage errors, no connection.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "tests/clients/process.h"

namespace ratequant::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

// Port 9 (discard) on loopback: nothing listens there.
constexpr char kNowhere[] = "127.0.0.1:9";

std::vector<std::string> Words(const std::string& text) {
  return absl::StrSplit(text, ' ', absl::SkipEmpty());
}

// Verbs that a help text lists.
std::vector<std::string> ListedVerbs(const std::string& help) {
  std::vector<std::string> verbs;
  const size_t list = help.find("Subcommands:\n");
  if (list == std::string::npos) return verbs;
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(help).substr(list), '\n')) {
    const bool verb =
        line.size() > 2 && line.substr(0, 2) == "  " && line[2] != ' ';
    if (verb) verbs.push_back(Words(std::string(line)).front());
    if (line.empty()) break;
  }
  return verbs;
}

void ExpectGoodHelp(const std::string& verb) {
  SCOPED_TRACE(absl::StrJoin({"ratequant", verb.c_str()}, " "));
  std::vector<std::string> words = Words(verb);
  words.push_back("--help");
  const ProcessResult result = RunRateQuant(words);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, HasSubstr("Usage: ratequant"));
  EXPECT_THAT(result.out, ContainsRegex("Examples:\n  (ratequant|python) "));
  EXPECT_THAT(result.out, HasSubstr("Exit codes:\n  0    success\n"));
  for (absl::string_view line : absl::StrSplit(result.out, '\n')) {
    EXPECT_LE(line.size(), 100u) << line;
  }
  for (const std::string& child : ListedVerbs(result.out)) {
    ExpectGoodHelp(verb.empty() ? child : absl::StrJoin({verb, child}, " "));
  }
}

TEST(HelpTest, EveryVerbHasADescriptionExamplesAndExitCodesWithin100Columns) {
  EXPECT_THAT(ListedVerbs(RunRateQuant({"--help"}).out), SizeIs(Ge(15u)));
  ExpectGoodHelp("");
}

struct UsageCase {
  const char* arguments;
  const char* message;
  const char* next;
};

class UsageTest : public ::testing::TestWithParam<UsageCase> {};

TEST_P(UsageTest, NamesTheMistakeAndTheHelpThatApplies) {
  ProcessResult result = RunRateQuant(Words(GetParam().arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, absl::StrJoin({"ratequant: ", GetParam().message,
                                       "\n  next  ", GetParam().next, "\n"},
                                      ""));
}

INSTANTIATE_TEST_SUITE_P(
    Mistakes, UsageTest,
    ::testing::Values(
        UsageCase{"",
                  "say what to do: calibrate, models, calibrations, bitmap, "
                  "curve, plan, policy, replay, watch, evaluations, admin, "
                  "doctor, completion, man, version",
                  "ratequant --help"},
        UsageCase{"bogus",
                  "'bogus' is not one of calibrate, models, calibrations, "
                  "bitmap, curve, plan, policy, replay, watch, evaluations, "
                  "admin, doctor, completion, man, version",
                  "ratequant --help"},
        UsageCase{"bitmap bogus", "'bogus' is not one of get",
                  "ratequant bitmap --help"},
        UsageCase{"bitmap get --effective-bits 3", "--model is required",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m",
                  "give exactly one budget: --effective-bits, --code-bits, "
                  "--bytes-per-token or --max-loss-increase",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --code-bits 3",
                  "give exactly one budget: --effective-bits, --code-bits, "
                  "--bytes-per-token or --max-loss-increase",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits three",
                  "--effective-bits: 'three' is not a number",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --sinks -1",
                  "--sinks: '-1' is not a whole number, 0 or more",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --objective best",
                  "--objective: 'best' is not one of attention-output, "
                  "loss-projected, measured, paper",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --strategy best",
                  "--strategy: 'best' is not one of allocated, k-ceil-v-floor, "
                  "layer-wise, uniform",
                  "ratequant bitmap get --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --widths 2,four",
                  "--widths: 'four' is not a whole number, 0 or more",
                  "ratequant bitmap get --help"},
        UsageCase{"curve --model m --key-min-width -1",
                  "--key-min-width: '-1' is not a whole number, 0 or more",
                  "ratequant curve --help"},
        UsageCase{"curve --model m --value-min-width x",
                  "--value-min-width: 'x' is not a whole number, 0 or more",
                  "ratequant curve --help"},
        UsageCase{"bitmap get --model m --effective-bits 3 --strategy",
                  "--strategy needs a value: allocated, k-ceil-v-floor, "
                  "layer-wise, uniform",
                  "ratequant bitmap get --help"},
        UsageCase{"models --output",
                  "--output needs a value: json, table, yaml",
                  "ratequant models --help"},
        UsageCase{"models --tls=maybe", "--tls: 'maybe' is not true or false",
                  "ratequant models --help"},
        UsageCase{"models --tls-ca /no/such/file",
                  "--tls-ca: cannot open /no/such/file: No such file or "
                  "directory",
                  "ratequant models --help"},
        UsageCase{"models --tls-key /dev/null", "--tls-key requires --tls-cert",
                  "ratequant models --help"},
        UsageCase{"models --timeout 0",
                  "--timeout: '0' is not a number of seconds above 0",
                  "ratequant models --help"},
        UsageCase{"models --timeout nan",
                  "--timeout: 'nan' is not a number of seconds above 0",
                  "ratequant models --help"},
        UsageCase{"calibrations get",
                  "give --model MODEL for its newest calibration, or a name",
                  "ratequant calibrations get --help"},
        UsageCase{"calibrations get 3f2a",
                  "which model's calibration '3f2a'? Give --model, or the "
                  "whole name models/MODEL/calibrations/ID",
                  "ratequant calibrations get --help"},
        UsageCase{"calibrations delete latest --model m",
                  "'latest' may mean another calibration by the time it is "
                  "deleted; give the id",
                  "ratequant calibrations delete --help"},
        UsageCase{"calibrate --model-path m --text /no/such/file",
                  "--text: cannot open /no/such/file: No such file or "
                  "directory",
                  "ratequant calibrate --help"}));

TEST(UsageTest, AnUnknownQuantizerIsFoundBeforeAnyCall) {
  ProcessResult result =
      RunRateQuant(Words("bitmap get --model m --effective-bits 3 --quantizer "
                         "kivi awq"));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("'awq'"));
  EXPECT_THAT(result.err, HasSubstr("rtn, kivi, quarot, turboquant, tcq"));
}

TEST(UsageTest, ARuleThatIsNotUnderstoodIsFoundBeforeAnyCall) {
  const std::pair<const char*, const char*> cases[] = {
      {"row=1,min=2",
       "'row=1' is not one of layer=N, head=N, tensor=key|value, min=BITS, "
       "max=BITS, width=BITS"},
      {"layer=x,min=2", "layer 'x' is not a whole number, 0 or more"},
      {"layer=,min=2", "layer '' is not a whole number, 0 or more"},
      {"head=-1,min=2", "head '-1' is not a whole number, 0 or more"},
      {"layer=0,width=0", "width '0' is not a whole number, 1 or more"},
      {"layer=4294967296,min=2",
       "layer '4294967296' is not a whole number, 0 or more"},
      {"tensor=query,min=2", "tensor 'query' is not one of key, value"},
      {"layer=0,layer=1,min=2", "'layer' is given twice"},
      {"layer=0", "give min, max or width"},
      {"max=4,width=4", "give width, or min and max, not both"},
  };
  for (const char* verb : {"bitmap get --effective-bits 3", "curve"}) {
    for (const auto& [rule, message] : cases) {
      std::vector<std::string> words = Words(verb);
      words.insert(words.end(), {"--model", "m", "--rule", "layer=0,width=8",
                                 "--rule", rule, "--endpoint", kNowhere});
      ProcessResult result = RunRateQuant(words);
      EXPECT_EQ(result.exit_code, 2) << rule;
      EXPECT_EQ(result.out, "") << rule;
      EXPECT_THAT(result.err,
                  HasSubstr(std::string("--rule ") + rule + ": " + message));
    }
  }
}

TEST(UnreachableTest, EveryVerbThatCallsSaysWhereItLookedAndHowToStartIt) {
  for (const char* verb :
       {"models", "models get m", "calibrations list",
        "calibrations list --model m", "calibrations get --model m",
        "bitmap get --model m --effective-bits 3", "curve --model m",
        "curve --model m --widths 2,4,8 --rule layer=0,width=8 --rule "
        "max=6,head=1,tensor=value,min=2"}) {
    std::vector<std::string> words = Words(verb);
    words.insert(words.end(), {"--endpoint", kNowhere});
    ProcessResult result = RunRateQuant(words);
    EXPECT_EQ(result.exit_code, 4) << verb;
    EXPECT_EQ(result.out, "") << verb;
    EXPECT_EQ(result.err,
              "ratequant: cannot reach the allocator at 127.0.0.1:9: "
              "Connection refused\n"
              "  next  start it:  ratequant-allocator --address 127.0.0.1:9 "
              "--data-dir DIR\n"
              "        or say where it runs: --endpoint HOST:PORT, or set "
              "RATEQUANT_ENDPOINT\n")
        << verb;
  }
}

TEST(UnreachableTest, EndpointsComeFromTheEnvironment) {
  ProcessResult result = RunRateQuant(
      {"models"}, {.environment = {{"RATEQUANT_ENDPOINT", "127.0.0.1:10"}}});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("the allocator at 127.0.0.1:10:"));
  // An option goes before the environment.
  result =
      RunRateQuant({"--endpoint", kNowhere, "models"},
                   {.environment = {{"RATEQUANT_ENDPOINT", "127.0.0.1:10"}}});
  EXPECT_THAT(result.err, HasSubstr("the allocator at 127.0.0.1:9:"));
}

TEST(VersionTest, SaysVersionAndApi) {
  ProcessResult result = RunRateQuant({"version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, StartsWith("ratequant 0."));
  EXPECT_THAT(result.out, HasSubstr("API ratequant.v1"));
  auto json = nlohmann::json::parse(RunRateQuant({"version", "--json"}).out);
  EXPECT_EQ(json["api"], "ratequant.v1");
  EXPECT_THAT(result.out, HasSubstr(json["version"].get<std::string>()));
}

TEST(OutputTest, AFullDiskIsAnError) {
  Process process(
      {"/bin/sh", "-c", Program("ratequant") + " version > /dev/full"});
  ProcessResult result = process.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, EndsWith("cannot write to standard output\n"));
}

}  // namespace
}  // namespace ratequant::testing
