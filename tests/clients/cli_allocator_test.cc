// The command against a real ratequant-allocator with its own data folder.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "clients/cpp/client.h"
#include "clients/cpp/resource_names.h"
#include "nlohmann/json.hpp"
#include "tests/clients/process.h"
#include "tests/clients/sample_calibration.h"

namespace ratequant::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr int kGroups = 6 * 2 * 2;

// An allocator that lives as long as this, on a port of its own.
class Allocator {
 public:
  explicit Allocator(const std::filesystem::path& folder)
      : process_({Program("ratequant-allocator"), "--address", "127.0.0.1:0",
                  "--data-dir", folder / "data", "--port-file", folder / "port",
                  "--backup-dir", folder / "backups"}) {
    absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!std::filesystem::exists(folder / "port") &&
           absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    int port = 0;
    std::ifstream(folder / "port") >> port;
    endpoint_ = absl::StrCat("127.0.0.1:", port);
  }

  const std::string& endpoint() const { return endpoint_; }

  ProcessResult Stop() {
    process_.Signal(SIGTERM);
    return process_.Wait();
  }

 private:
  Process process_;
  std::string endpoint_;
};

Json ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  return Json::parse(file, nullptr, /*allow_exceptions=*/false);
}

class AllocatorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::filesystem::temp_directory_path() /
              absl::StrCat("ratequant-cli-allocator-", getpid());
    std::filesystem::create_directories(folder_);
    allocator_ = std::make_unique<Allocator>(folder_);
    client::Client client(client::ConnectionOptions{
        .allocator_endpoint = allocator_->endpoint()});
    older_ = Store(client, "org/small", SampleCalibration({"kivi"}, 6, 2));
    newest_ =
        Store(client, "org/small", SampleCalibration({"kivi", "turboquant"}));
    Store(client, "other", SampleCalibration({"quarot"}, 3));
  }

  static void TearDownTestSuite() {
    EXPECT_EQ(allocator_->Stop().exit_code, 0);
    allocator_.reset();
    std::filesystem::remove_all(folder_);
  }

  static std::string Store(client::Client& client, const std::string& model,
                           const v1::Calibration& calibration) {
    auto stored = client.CreateCalibration(model, calibration);
    EXPECT_TRUE(stored.ok()) << stored.status();
    return stored.ok() ? client::ResourceId(stored->name()) : "";
  }

  static ProcessResult Run(const std::string& command,
                           ProcessOptions options = {}) {
    options.environment["RATEQUANT_ENDPOINT"] = allocator_->endpoint();
    return RunRateQuant(absl::StrSplit(command, ' ', absl::SkipEmpty()),
                        options);
  }

  static Json RunJson(const std::string& command) {
    ProcessResult result = Run(command + " --json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return Json::parse(result.out, nullptr, /*allow_exceptions=*/false);
  }

  inline static std::filesystem::path folder_;
  inline static std::unique_ptr<Allocator> allocator_;
  inline static std::string older_;
  inline static std::string newest_;
};

TEST_F(AllocatorTest, ModelsAreListedInATable) {
  ProcessResult result = Run("models");
  EXPECT_EQ(result.exit_code, 0);
  std::vector<std::string> lines = absl::StrSplit(result.out, '\n');
  ASSERT_EQ(lines.size(), 4u) << result.out;
  EXPECT_EQ(
      lines[0],
      "MODEL       LAYERS  KV HEADS  HEAD DIM  CALIBRATIONS  NEWEST (UTC)");
  EXPECT_THAT(lines[1], StartsWith("org--small       6         2        64     "
                                   "        2  20"));
  EXPECT_THAT(lines[2], StartsWith("other            3         2        64     "
                                   "        1  20"));
}

TEST_F(AllocatorTest, ModelsAsJsonHaveTheFieldNamesOfTheApi) {
  Json json = RunJson("models list");
  ASSERT_EQ(json["models"].size(), 2u);
  EXPECT_EQ(json["models"][0]["name"], "models/org--small");
  EXPECT_EQ(json["models"][0]["geometry"]["kv_heads"], 2);
  EXPECT_EQ(json["models"][0]["latest_calibration"],
            "models/org--small/calibrations/" + newest_);
  EXPECT_EQ(RunJson("models get org/small"), json["models"][0]);
}

TEST_F(AllocatorTest, OneModelIsShown) {
  ProcessResult result = Run("models get org/small");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out,
              StartsWith("model         org--small\n"
                         "shape         6 layers, 2 KV heads, 6 query heads, "
                         "head_dim 64; 24 groups\n"
                         "calibrations  2\n"
                         "newest        " +
                         newest_ + "\n"));
}

TEST_F(AllocatorTest, CalibrationsAreListedForOneModelOrAll) {
  ProcessResult one = Run("calibrations list --model org/small");
  EXPECT_EQ(one.exit_code, 0);
  std::vector<std::string> lines = absl::StrSplit(one.out, '\n');
  ASSERT_EQ(lines.size(), 4u) << one.out;
  EXPECT_THAT(lines[1], StartsWith("org--small  " + newest_.substr(0, 12)));
  EXPECT_THAT(lines[1], HasSubstr("8,192      4  kivi turboquant"));
  EXPECT_THAT(lines[2], StartsWith("org--small  " + older_.substr(0, 12)));
  ProcessResult all = Run("calibrations list");
  EXPECT_THAT(all.out, HasSubstr("\nother "));
  EXPECT_EQ(RunJson("calibrations list")["calibrations"].size(), 3u);
}

TEST_F(AllocatorTest, ListsAreFiltered) {
  EXPECT_EQ(RunJson("models list --prefix org--")["models"].size(), 1u);
  EXPECT_EQ(Run("models list --prefix nobody").out,
            "no model's id begins with 'nobody'\n");
  const auto count = [&](const std::string& filter) {
    const Json json = RunJson("calibrations list " + filter);
    return json.contains("calibrations") ? json["calibrations"].size() : 0;
  };
  EXPECT_EQ(count("--quantizer kivi"), 2u);
  EXPECT_EQ(count("--quantizer kivi:group_size=64"), 0u);
  EXPECT_EQ(count("--since 2020-01-01"), 3u);
  EXPECT_EQ(count("--before 2020-01-01T00:00:00Z"), 0u);
  EXPECT_EQ(Run("calibrations list --before 2020-01-01").out,
            "no calibration matches; see all: ratequant calibrations list\n");
}

TEST_F(AllocatorTest, FiltersThatMeanNothingAreNamed) {
  EXPECT_THAT(Run("calibrations list --since yesterday").err,
              HasSubstr("'yesterday' is not a time, such as 2026-11-24"));
  EXPECT_THAT(Run("calibrations list --quantizer kiwi").err, HasSubstr("kiwi"));
}

TEST_F(AllocatorTest, ACalibrationIsShownByModelIdPrefixAndName) {
  ProcessResult latest = Run("calibrations get --model org/small");
  EXPECT_EQ(latest.exit_code, 0);
  EXPECT_THAT(
      latest.out,
      AllOf(HasSubstr("calibration   " + newest_),
            HasSubstr("16 sequences of 512 tokens, the first 4 left out as "
                      "sinks; float32 on cpu\n"),
            HasSubstr("page          32 tokens\n"),
            HasSubstr("QUANTIZER    1 bit"),
            HasSubstr("turboquant  K     1.50  3.70"),
            HasSubstr("warnings      made up for a test\n")));
  for (const std::string& name :
       {newest_ + " --model org/small",
        newest_.substr(0, 6) + " --model org/small",
        "models/org--small/calibrations/" + newest_}) {
    EXPECT_EQ(Run("calibrations get " + name).out, latest.out) << name;
  }
  EXPECT_THAT(Run("calibrations get " + older_ + " --model org/small").out,
              Not(HasSubstr("turboquant")));
}

TEST_F(AllocatorTest, ACalibrationExplainsItself) {
  ProcessResult result =
      Run("calibrations get " + newest_ + " --model org/small");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("on cpu by ratequant 0"), HasSubstr("NOISE"),
                    HasSubstr("20%"), HasSubstr("AM/GM"), HasSubstr("3.25"),
                    HasSubstr("2.5 bit"), HasSubstr("1.75")));
}

TEST_F(AllocatorTest, ACalibrationAsJsonIsAllThatIsStored) {
  Json json = RunJson("calibrations get --model org/small");
  EXPECT_EQ(json["groups"].size(), kGroups);
  ASSERT_EQ(json["tables"].size(), 2u);
  for (const Json& table : json["tables"]) {
    for (const char* array : {"mse", "c1", "c2"}) {
      EXPECT_EQ(table[array].size(), kGroups * table["widths"].size());
    }
    EXPECT_EQ(table["group_fits"].size(), kGroups);
  }
  v1::Calibration sample = SampleCalibration({"kivi", "turboquant"});
  EXPECT_EQ(json["tables"][1]["c2"][17], sample.tables(1).c2(17));
  EXPECT_EQ(json["capture"]["sink_tokens"], 4);
}

TEST_F(AllocatorTest, ABitMapIsShownWithItsCostGainAndPicture) {
  ProcessResult result = Run("bitmap get --model org/small --effective-bits 3");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(
      result.out,
      AllOf(
          HasSubstr("calibration  " + newest_ + "\n"),
          HasSubstr("budget       3.000 effective bits per element"),
          HasSubstr("times smaller than fp16\n"),
          HasSubstr("% less than uniform ("),
          HasSubstr("policy       allocated, loss-projected"),
          HasSubstr("cache        first 4 and newest 32 tokens in fp16; bytes "
                    "counted at 4,096 tokens, in pages of 32\n"),
          HasSubstr("GROUPS  QUANTIZER"), HasSubstr("\n5  "),
          HasSubstr("rows: layers; columns: KV heads 0-1;")));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
  for (absl::string_view line : absl::StrSplit(result.out, '\n')) {
    EXPECT_LE(line.size(), 100u) << line;
  }
}

TEST_F(AllocatorTest, HeadsWithinNoiseAreNamedOnRequest) {
  const std::string get =
      "bitmap get --model org/small --effective-bits 3 --objective ";
  ProcessResult result = Run(get + "loss-projected --show-noise");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("Within noise: one standard error"),
                    HasSubstr(absl::StrCat(" of ", kGroups, " groups")),
                    HasSubstr("K HEADS")));
  EXPECT_THAT(Run(get + "loss-projected").out, Not(HasSubstr("Within noise")));
  EXPECT_THAT(Run(get + "measured --show-noise").out,
              HasSubstr("Noise isn't known"));
}

TEST_F(AllocatorTest, ABitMapAsJsonIsTheWholeMessage) {
  Json json = RunJson("bitmap get --model org/small --effective-bits 3");
  EXPECT_THAT(json["name"].get<std::string>(),
              StartsWith("models/org--small/bitMaps/"));
  EXPECT_EQ(json["width"].size(), kGroups);
  EXPECT_EQ(json["quantizer_index"].size(), kGroups);
  EXPECT_EQ(json["budget"]["effective_bits"], 3);
  EXPECT_LE(json["effective_bits"], 3);
  EXPECT_LT(json["objective_value"], json["uniform_objective_value"]);
  EXPECT_EQ(json["policy"]["separate_key_value"], false);
  // --out puts the same there; an unchanged map leaves the file as it is.
  const std::filesystem::path file = folder_ / "map.json";
  const std::string to_file =
      "bitmap get --model org/small --effective-bits 3 --out " + file.string();
  EXPECT_EQ(Run(to_file).exit_code, 0);
  EXPECT_EQ(ReadJson(file), json);
  EXPECT_EQ(Run("bitmap get --model org/small --effective-bits 3 --out " +
                (folder_ / "missing/map.json").string())
                .exit_code,
            2);
  // The same request answers with the same bytes, and a known id with none.
  EXPECT_EQ(RunJson("bitmap get --model org/small --effective-bits 3"), json);
  std::string id = client::ResourceId(json["name"].get<std::string>());
  std::string known =
      "bitmap get --model org/small --effective-bits 3 --known-etag " + id;
  EXPECT_EQ(Run(known).out, "unchanged: " + id + "\n");
  Json unchanged = RunJson(known);
  EXPECT_EQ(unchanged["unchanged"], true);
  EXPECT_EQ(unchanged["etag"], id);
  EXPECT_FALSE(unchanged.contains("bit_map"));
}

TEST_F(AllocatorTest, EveryOptionReachesTheAllocator) {
  Json json = RunJson(
      "bitmap get --model org/small --code-bits 3 --quantizer kivi "
      "--objective measured --strategy allocated --separate --min-width 2 "
      "--max-width 5 --window 0 --context 1024 --continuous --calibration " +
      older_.substr(0, 8));
  EXPECT_EQ(json["calibration"], "models/org--small/calibrations/" + older_);
  EXPECT_EQ(json["budget"]["code_bits"], 3);
  ASSERT_EQ(json["quantizers"].size(), 1u);
  EXPECT_EQ(json["quantizers"][0]["kind"], "KIVI");
  EXPECT_EQ(json["policy"]["objective"], "MEASURED");
  EXPECT_EQ(json["policy"]["separate_key_value"], true);
  EXPECT_EQ(json["policy"]["min_width"], 2);
  EXPECT_EQ(json["policy"]["max_width"], 5);
  EXPECT_EQ(json["cache"]["window"], 0);
  EXPECT_EQ(json["cache"]["context_tokens"], 1024);
  EXPECT_EQ(json["continuous_width"].size(), kGroups);
  for (int width : json["width"]) {
    EXPECT_GE(width, 2);
    EXPECT_LE(width, 5);
  }
}

TEST_F(AllocatorTest, AWindowOfZeroIsNotTheDefaultWindow) {
  std::string command =
      "bitmap get --model org/small --code-bits 3 --quantizer kivi";
  Json with = RunJson(command);
  Json without = RunJson(command + " --window 0");
  EXPECT_EQ(with["cache"]["window"], 32);
  EXPECT_EQ(without["cache"]["window"], 0);
  EXPECT_GT(with["bytes_per_token"], without["bytes_per_token"]);
}

TEST_F(AllocatorTest, EveryKindOfBudgetAnswers) {
  Json bytes = RunJson("bitmap get --model org/small --bytes-per-token 600");
  EXPECT_LE(bytes["bytes_per_token"], 600);
  ProcessResult loss =
      Run("bitmap get --model org/small --max-loss-increase 0.0005");
  EXPECT_EQ(loss.exit_code, 0) << loss.err;
  EXPECT_THAT(loss.out, HasSubstr("cost than the uniform map within the same "
                                  "loss ("));
  Json uniform = RunJson(
      "bitmap get --model org/small --code-bits 3 --quantizer kivi --strategy "
      "uniform");
  for (int width : uniform["width"]) EXPECT_EQ(width, 3);
}

TEST_F(AllocatorTest, TheCurveIsATableAndAPlot) {
  ProcessResult result = Run("curve --model org/small --max-points 8");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("EFFECTIVE BITS  CODE BITS  BYTES/TOKEN  LOSS "
                              "INCREASE   UNIFORM  AGAINST UNIFORM  "
                              "K-CEIL-V-FLOOR\n"),
                    HasSubstr("predicted loss increase, nats per token   * "
                              "allocated   o best uniform\n"),
                    HasSubstr("effective bits per element\n")));
  for (absl::string_view line : absl::StrSplit(result.out, '\n')) {
    EXPECT_LE(line.size(), 100u) << line;
  }
  EXPECT_EQ(RunJson("curve --model org/small --max-points 8")["points"].size(),
            8u);
  Json all = RunJson("curve --model org/small");
  ASSERT_GT(all["points"].size(), 24u);
  EXPECT_GT(all["points"].front()["objective_value"],
            all["points"].back()["objective_value"]);
}

TEST_F(AllocatorTest, ACurveInCodeBitsLeavesOverheadOut) {
  std::string command = "curve --model org/small --quantizer kivi --cost ";
  Json bits = RunJson(command + "code-bits");
  Json bytes = RunJson(command + "bytes");
  EXPECT_EQ(bits["points"].front()["code_bits"], 2);
  EXPECT_EQ(bits["points"].back()["code_bits"], 8);
  EXPECT_EQ(bits["breakpoints"], bits["points"].size());
  EXPECT_EQ(bits["points"].front()["loss_increase"],
            bytes["points"].front()["loss_increase"]);
}

TEST_F(AllocatorTest, APlanSaysWhatFitsAndWhatEachCosts) {
  // 12 MiB for 8 sequences of 4096 tokens: 384 bytes a token, 4 bits.
  std::string command =
      "plan --model org/small --gpu-memory 16MiB --weights 4MiB --context 4k "
      "--batch 8";
  ProcessResult result = Run(command);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(
      result.out,
      AllOf(HasSubstr("memory       12 MiB for caches: 16 MiB less 4 MiB of "
                      "weights\n"),
            HasSubstr("to fit       8 sequences of 4,096 tokens\n"),
            HasSubstr("in fp16      96 MiB, doesn't fit; only 1 sequence of "
                      "4,096 tokens\n"),
            HasSubstr("EFFECTIVE BITS  BYTES/TOKEN  MAX BATCH  MAX CONTEXT  "
                      "LOSS INCREASE  AGAINST UNIFORM\n"),
            HasSubstr("Max batch at 4,096 tokens, max context with 8 "
                      "sequences.\n")));
  for (absl::string_view line : absl::StrSplit(result.out, '\n')) {
    EXPECT_LE(line.size(), 110u) << line;
  }
  Json plan = RunJson(command);
  EXPECT_EQ(plan["points"].size(), plan["breakpoints"]);
  Json best = plan["points"].back();
  EXPECT_LE(best["bytes_per_token"], 384);
  EXPECT_GT(best["bytes_per_token"], 370);
  // The map it recommends is the best that fits.
  std::string advice =
      result.out.substr(result.out.find("ratequant bitmap get ") + 10);
  Json map = RunJson(advice.substr(0, advice.find('\n')));
  EXPECT_EQ(map["bytes_per_token"], best["bytes_per_token"]);
  EXPECT_DOUBLE_EQ(map["objective_value"], best["objective_value"]);
}

TEST_F(AllocatorTest, APlanThatFp16FitsSaysSo) {
  EXPECT_THAT(Run("plan --model org/small --gpu-memory 1GiB").out,
              AllOf(HasSubstr("1 GiB for caches, no weights set aside\n"),
                    HasSubstr("in fp16      12 MiB, fits too; at most 85 "
                              "sequences of 4,096 tokens\n")));
}

TEST_F(AllocatorTest, AColourTerminalGetsColoursUnlessNoColorIsSet) {
  std::string command = "bitmap get --model org/small --effective-bits 3";
  ProcessResult colour = Run(
      command, {.environment = {{"TERM", "xterm-256color"}}, .terminal = true});
  EXPECT_THAT(colour.out, HasSubstr("\x1b[38;5;"));
  ProcessResult plain = Run(
      command, {.environment = {{"TERM", "xterm-256color"}, {"NO_COLOR", "1"}},
                .terminal = true});
  EXPECT_THAT(plain.out, Not(HasSubstr("\x1b")));
  ProcessResult dumb =
      Run(command, {.environment = {{"TERM", "dumb"}}, .terminal = true});
  EXPECT_THAT(dumb.out, Not(HasSubstr("\x1b")));
}

TEST_F(AllocatorTest, ADeletedCalibrationIsGone) {
  client::Client client(
      client::ConnectionOptions{.allocator_endpoint = allocator_->endpoint()});
  std::string id =
      Store(client, "doomed", SampleCalibration({"kivi", "quarot"}, 2, 5));
  ProcessResult result =
      Run("calibrations delete " + id.substr(0, 12) + " --model doomed");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "deleted models/doomed/calibrations/" + id + "\n");
  EXPECT_EQ(Run("models get doomed").exit_code, 3);
  EXPECT_EQ(Run("calibrations delete " + id + " --model doomed").exit_code, 3);
}

struct ErrorCase {
  const char* name;
  const char* command;
  int exit_code;
  std::vector<const char*> said;
};

class AllocatorErrorTest : public AllocatorTest,
                           public ::testing::WithParamInterface<ErrorCase> {};

TEST_P(AllocatorErrorTest, SaysReasonAndNextStep) {
  ProcessResult result = Run(GetParam().command);
  EXPECT_EQ(result.exit_code, GetParam().exit_code);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, StartsWith("ratequant: "));
  for (const char* text : GetParam().said) {
    EXPECT_THAT(result.err, HasSubstr(text));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, AllocatorErrorTest,
    ::testing::Values(
        ErrorCase{"UnknownModel",
                  "bitmap get --model nope --effective-bits 3",
                  3,
                  {"reason  MODEL_NOT_FOUND\n",
                   "calibrated models: org--small, other"}},
        ErrorCase{"UnknownCalibration",
                  "calibrations get models/org--small/calibrations/"
                  "0000000000000000000000000000000000000000000000000000000000"
                  "000000",
                  3,
                  {"reason  CALIBRATION_NOT_FOUND\n", "calibrations: "}},
        ErrorCase{"UnknownPrefix",
                  "calibrations get 00000 --model org/small",
                  3,
                  {"no calibration whose id begins with '00000'"}},
        ErrorCase{"QuantizerNotCalibrated",
                  "bitmap get --model org/small --effective-bits 4 --quantizer "
                  "quarot",
                  1,
                  {"reason  QUANTIZER_NOT_CALIBRATED\n",
                   "calibrated: kivi, turboquant\n"}},
        ErrorCase{"OtherParameters",
                  "bitmap get --model org/small --effective-bits 4 --quantizer "
                  "kivi:group_size=64",
                  1,
                  {"reason  QUANTIZER_NOT_CALIBRATED\n"}},
        ErrorCase{"BudgetBelowMinimum",
                  "bitmap get --model org/small --effective-bits 0.5",
                  1,
                  {"reason  BUDGET_BELOW_MINIMUM\n",
                   "ratequant curve --model org/small"}},
        ErrorCase{"BudgetAbove16",
                  "bitmap get --model org/small --effective-bits 17",
                  1,
                  {"reason  BUDGET_ABOVE_MAXIMUM\n"}},
        ErrorCase{"BudgetNotANumber",
                  "bitmap get --model org/small --effective-bits nan",
                  1,
                  {"reason  BUDGET_INVALID\n"}},
        ErrorCase{"BudgetNegative",
                  "bitmap get --model org/small --effective-bits -1",
                  1,
                  {"reason  BUDGET_INVALID\n"}},
        ErrorCase{"CodeBitsOfSeveralQuantizers",
                  "bitmap get --model org/small --code-bits 3",
                  1,
                  {"reason  BUDGET_NEEDS_ONE_QUANTIZER\n", "--effective-bits"}},
        ErrorCase{"PaperOfSeveralQuantizers",
                  "bitmap get --model org/small --effective-bits 3 --objective "
                  "paper",
                  1,
                  {"reason  OBJECTIVE_NEEDS_ONE_QUANTIZER\n"}},
        ErrorCase{"OtherSinks",
                  "bitmap get --model org/small --effective-bits 3 --sinks 0",
                  1,
                  {"reason  CALIBRATION_MISMATCH\n", "leave --sinks out"}},
        ErrorCase{"WidthTooLarge",
                  "bitmap get --model org/small --effective-bits 3 --max-width "
                  "9",
                  1,
                  {"reason  UNSUPPORTED_WIDTH\n"}},
        ErrorCase{"NothingFits",
                  "plan --model org/small --gpu-memory 16MiB --weights 14MiB "
                  "--context 4k --batch 8",
                  1,
                  {"8 sequences of 4096 tokens take ", "reason  NOTHING_FITS\n",
                   "lower --batch or --context"}},
        ErrorCase{"WeightsFillTheMemory",
                  "plan --model org/small --gpu-memory 16GiB --weights 16GiB",
                  2,
                  {"--weights 16 GiB leave nothing of --gpu-memory 16 GiB"}},
        ErrorCase{"DecimalMemory",
                  "plan --model org/small --gpu-memory 80GB",
                  2,
                  {"'80GB' is not an amount of memory", "such as 80GiB"}},
        ErrorCase{"MemoryWithoutUnit",
                  "plan --model org/small --gpu-memory 80",
                  2,
                  {"'80' is not an amount of memory", "KiB, MiB, GiB or TiB"}},
        ErrorCase{"NegativeMemory",
                  "plan --model org/small --gpu-memory -5GiB",
                  2,
                  {"'-5GiB' is not an amount of memory", "0 or more"}},
        ErrorCase{"EndlessMemory",
                  "plan --model org/small --gpu-memory 1e99TiB",
                  2,
                  {"'1e99TiB' is not an amount of memory"}},
        ErrorCase{"NoContext",
                  "plan --model org/small --gpu-memory 1GiB --context 0",
                  2,
                  {"'0' is not a number of tokens above 0"}},
        ErrorCase{"EndlessContext",
                  "plan --model org/small --gpu-memory 1GiB --context 4194304k",
                  2,
                  {"'4194304k' is not a number of tokens above 0"}},
        ErrorCase{"NoBatch",
                  "plan --model org/small --gpu-memory 1GiB --batch 0",
                  2,
                  {"--batch", "1 to 4294967295"}},
        ErrorCase{"EndlessPoints",
                  "curve --model org/small --max-points 99999999999",
                  2,
                  {"'99999999999' is not a whole number"}},
        ErrorCase{"CodeBitsCurveOfSeveralQuantizers",
                  "curve --model org/small --cost code-bits",
                  1,
                  {"reason  BUDGET_NEEDS_ONE_QUANTIZER\n"}},
        ErrorCase{"BadModelId",
                  "models get bad%name",
                  1,
                  {"reason  INVALID_NAME\n"}}),
    [](const auto& info) { return info.param.name; });

// Waits until a file has so many lines.
std::vector<std::string> WaitForLines(const std::filesystem::path& path,
                                      size_t count) {
  std::vector<std::string> lines;
  absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (lines.size() < count && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
    lines.clear();
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) lines.push_back(line);
  }
  return lines;
}

TEST_F(AllocatorTest, AWatchPrintsEachMapThatBecomesTheBest) {
  client::Client client(
      client::ConnectionOptions{.allocator_endpoint = allocator_->endpoint()});
  Store(client, "watched", SampleCalibration({"kivi"}, 3));
  const std::filesystem::path out = folder_ / "watched.out";
  const std::filesystem::path file = folder_ / "watched.json";
  // Into a file, so that it can be looked at while the watch goes on.
  Process watch({"/bin/sh", "-c",
                 absl::StrCat("exec ", Program("ratequant"), " --endpoint ",
                              allocator_->endpoint(),
                              " watch --model watched --effective-bits 6 "
                              "--json --out ",
                              file.string(), " > ", out.string())});
  ASSERT_EQ(WaitForLines(out, 1).size(), 1u);
  Store(client, "watched", SampleCalibration({"turboquant"}, 3));
  const std::vector<std::string> lines = WaitForLines(out, 2);
  ASSERT_EQ(lines.size(), 2u);
  watch.Signal(SIGINT);
  EXPECT_EQ(watch.Wait().exit_code, 0);
  const Json first = Json::parse(lines[0]), second = Json::parse(lines[1]);
  EXPECT_EQ(first["bit_map"]["quantizers"][0]["kind"], "KIVI");
  EXPECT_EQ(second["bit_map"]["quantizers"][0]["kind"], "TURBOQUANT");
  EXPECT_NE(first["etag"], second["etag"]);
  EXPECT_EQ(ReadJson(file), second["bit_map"]);
  EXPECT_EQ(Run("watch --model watched --effective-bits 6 --out " +
                (folder_ / "missing/map.json").string())
                .exit_code,
            2);
  // Without an answer there is nothing to watch.
  ProcessResult refused = Run("watch --model nowhere --effective-bits 6");
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.err, HasSubstr("nowhere"));
}

TEST_F(AllocatorTest, AMeasurementIsRecordedShownAndObeyed) {
  client::Client client(
      client::ConnectionOptions{.allocator_endpoint = allocator_->endpoint()});
  const std::string calibration =
      Store(client, "judged", SampleCalibration({"quarot", "rtn"}, 4));
  const std::string query = "bitmap get --model judged --effective-bits 5";
  const std::string map = RunJson(query)["name"];
  const std::string uniform = RunJson(query + " --strategy uniform")["name"];
  EXPECT_EQ(Run("evaluations list judged").exit_code, 0);
  ProcessResult missing = Run(query + " --require-evaluated");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("has no evaluation"));

  const std::filesystem::path file = folder_ / "evaluation.json";
  std::ofstream(file) << Json{{"uniform_bit_map", uniform},
                              {"text_digest", std::string(64, 'a')},
                              {"text", "held-out.txt"},
                              {"tokens", 3066},
                              {"fp_perplexity", 2},
                              {"uniform_perplexity", 2},
                              {"perplexity", 2 * std::exp(0.25)},
                              {"loss_minus_uniform", 0.25},
                              {"loss_minus_fp", 0.25}};
  ProcessResult recorded =
      Run(absl::StrCat("evaluations record ", map, " --file ", file.string()));
  ASSERT_EQ(recorded.exit_code, 0) << recorded.err;
  EXPECT_THAT(recorded.out, StartsWith("recorded " + map + "/evaluations/"));
  EXPECT_THAT(Run("evaluations list judged").out,
              AllOf(HasSubstr("held-out.txt"), HasSubstr("3,066"),
                    HasSubstr("+0.2500")));
  EXPECT_EQ(RunJson(query)["name"], uniform);
  EXPECT_THAT(Run(query).out,
              AllOf(HasSubstr("uniform, in place of "),
                    HasSubstr("worse than uniform over 3066 tokens")));
  EXPECT_EQ(RunJson(query + " --keep-measured-worse")["name"], map);

  ProcessResult in_use =
      Run("calibrations delete " + calibration + " --model judged");
  EXPECT_EQ(in_use.exit_code, 1);
  EXPECT_THAT(in_use.err, HasSubstr("1 evaluations"));
  const Json evaluations = RunJson("evaluations list " + map)["evaluations"];
  ASSERT_EQ(evaluations.size(), 1u);
  const std::string name = evaluations[0]["name"];
  EXPECT_EQ(Run("evaluations delete " + name).exit_code, 0);
  EXPECT_EQ(RunJson(query)["name"], map);
  EXPECT_EQ(Run("evaluations delete " + name).exit_code, 3);
  std::ofstream(file) << "{\"tokens\": \"many\"}";
  ProcessResult bad =
      Run(absl::StrCat("evaluations record ", map, " --file ", file.string()));
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("evaluation.json"));
}

TEST_F(AllocatorTest, TheStoreIsBackedUpAndCounted) {
  ProcessResult backup = Run("admin backup monday");
  ASSERT_EQ(backup.exit_code, 0) << backup.err;
  EXPECT_THAT(backup.out, HasSubstr((folder_ / "backups" / "monday").string()));
  ProcessResult again = Run("admin backup monday");
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, HasSubstr("monday"));
  Run("bitmap get --model other --effective-bits 6");
  Json before = RunJson("admin stats");
  Run("bitmap get --model other --effective-bits 6");
  Json after = RunJson("admin stats");
  EXPECT_EQ(std::stoi(after["memory"]["hits"].get<std::string>()),
            std::stoi(before["memory"]["hits"].get<std::string>()) + 1);
  EXPECT_EQ(after["solves"], before["solves"]);
  EXPECT_THAT(Run("admin stats").out,
              AllOf(HasSubstr("memory"), HasSubstr("watchers")));
}

TEST_F(AllocatorTest, PoliciesAreStoredAndUsedByName) {
  const std::string shape =
      " --widths 2,4,8 --max-formats 3 --rule layer=0,width=16";
  EXPECT_THAT(Run("policy list").out, HasSubstr("no policy is stored"));
  ProcessResult created = Run("policy create engine-a" + shape);
  ASSERT_EQ(created.exit_code, 0) << created.err;
  EXPECT_THAT(created.out,
              AllOf(HasSubstr("engine-a"), HasSubstr("widths 2, 4, 8"),
                    HasSubstr("at most 3 formats in a layer")));
  EXPECT_EQ(RunJson("policy get engine-a")["policy"]["rules"].size(), 1u);
  EXPECT_EQ(RunJson("policy list")["policies"].size(), 1u);

  const std::string query = "bitmap get --model org/small --effective-bits 7";
  Json named = RunJson(query + " --policy engine-a");
  EXPECT_EQ(named["name"], RunJson(query + shape)["name"]);
  for (int g = 0; g < kGroups; ++g) {
    EXPECT_EQ(named["width"][g] == 16, g < 4) << g;
  }
  ProcessResult both = Run(query + " --policy engine-a --max-width 4");
  EXPECT_EQ(both.exit_code, 1);
  EXPECT_THAT(both.err, HasSubstr("policy_name"));
  ProcessResult other = Run("policy create engine-a --max-width 4");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("exists with other content"));

  EXPECT_EQ(Run("policy delete engine-a").out, "deleted policies/engine-a\n");
  ProcessResult gone = Run(query + " --policy engine-a");
  EXPECT_EQ(gone.exit_code, 3);
  EXPECT_THAT(gone.err, HasSubstr("policies/engine-a"));
}

}  // namespace
}  // namespace ratequant::testing
