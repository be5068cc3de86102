// `ratequant replay` as people and programs use it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cli/json_output.h"
#include "nlohmann/json.hpp"
#include "ratequant/v1/bit_map.pb.h"
#include "tests/clients/capture_builder.h"
#include "tests/clients/process.h"

namespace ratequant::testing {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// A bit map of the capture's geometry: K in kivi of 4 bits, V in turboquant of
// 2, and the last group in fp16.
v1::BitMap SampleMap() {
  v1::BitMap map;
  map.set_name("models/toy/bitMaps/0");
  v1::ModelGeometry& geometry = *map.mutable_geometry();
  geometry.set_layers(2);
  geometry.set_kv_heads(2);
  geometry.set_query_heads(4);
  geometry.set_head_dim(32);
  map.add_quantizers()->set_kind(v1::Quantizer::KIVI);
  map.add_quantizers()->set_kind(v1::Quantizer::TURBOQUANT);
  for (int group = 0; group < 8; ++group) {
    map.add_quantizer_index(group % 2);
    map.add_width(group == 7 ? 16 : group % 2 == 0 ? 4 : 2);
  }
  map.mutable_cache()->set_sink_tokens(1);
  map.mutable_cache()->set_window(8);
  map.set_format_version(1);
  return map;
}

class CliReplayTest : public ::testing::Test {
 protected:
  CliReplayTest()
      : capture_(folder_.Write("c.safetensors", CaptureBuilder().Bytes())) {}

  std::string Write(const v1::BitMap& map) {
    return folder_.Write("map.json", cli::ToJson(map).value());
  }

  ProcessResult Replay(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"replay", "--capture", capture_});
    return RunRateQuant(arguments);
  }

  void ExpectUsageError(const std::vector<std::string>& arguments,
                        const std::string& message) {
    const ProcessResult result = Replay(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr(message));
  }

  TempFolder folder_;
  std::string capture_;
};

TEST_F(CliReplayTest, PrintsALineAMap) {
  const std::string map = Write(SampleMap());
  const ProcessResult result =
      Replay({"--map", map, "--uniform", "fp16", "kivi:group_size=16:2",
              "--threads", "1", "--per-layer"});
  EXPECT_EQ(result.err, "");
  ASSERT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("toy: 3 x 48 tokens, the last 24 of each "
                                    "decoded one by one; 1 thread\n"));
  std::vector<std::string> lines = absl::StrSplit(result.out, '\n');
  ASSERT_GE(lines.size(), 12u);
  EXPECT_THAT(lines[3], AllOf(HasSubstr("code bits"), HasSubstr("append/s")));
  EXPECT_THAT(lines[4], AllOf(HasSubstr(map), HasSubstr("  4.750  ")));
  EXPECT_THAT(lines[5], HasSubstr("fp16"));
  EXPECT_THAT(lines[6], HasSubstr("kivi:group_size=16:2"));
  EXPECT_THAT(lines[8], HasSubstr("layer"));
}

TEST_F(CliReplayTest, JsonHasEverything) {
  const ProcessResult result =
      Replay({"--map", Write(SampleMap()), "--uniform", "kivi:4", "fp16",
              "--decode", "10", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["capture"]["model"], "toy");
  EXPECT_EQ(json["capture"]["query_heads"], 4);
  EXPECT_EQ(json["decode_tokens"], 10);
  ASSERT_EQ(json["maps"].size(), 3u);
  const auto& map = json["maps"][0];
  EXPECT_EQ(map["code_bits"], 4.75);
  ASSERT_EQ(map["error"]["layers"].size(), 2u);
  double sum = 0;
  for (const auto& layer : map["error"]["layers"]) {
    sum += layer["mean"].get<double>();
    EXPECT_GE(map["error"]["worst"], layer["worst"]);
  }
  EXPECT_DOUBLE_EQ(map["error"]["mean"], sum / 2);
  const int worst = map["error"]["worst_layer"];
  EXPECT_GE(map["error"]["layers"][worst]["mean"], sum / 2);
  EXPECT_GT(map["error"]["mean"], json["maps"][1]["error"]["mean"]);
  EXPECT_GT(map["append_tokens_per_second"], 0);
  EXPECT_GT(map["attend_tokens_per_second"], 0);
  // 48 tokens in fp16: the cache's every byte is one of an element.
  EXPECT_LT(json["maps"][2]["error"]["mean"], 1e-3);
  EXPECT_GE(json["maps"][2]["allocated_bytes"], 2 * 2 * 2 * 48 * 32 * 2);
}

TEST_F(CliReplayTest, SinksWindowAndPagesOfTheCommandLineGoFirst) {
  v1::BitMap map = SampleMap();
  const auto bytes = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--map", Write(map), "--json"});
    const ProcessResult result = Replay(more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out)["maps"][0]["allocated_bytes"]
        .get<int64_t>();
  };
  const int64_t plain = bytes({});
  EXPECT_EQ(bytes({"--window", "8", "--sinks", "1"}), plain);
  EXPECT_GT(bytes({"--window", "24"}), plain);
  EXPECT_GT(bytes({"--sinks", "6"}), plain);
  const int64_t large_pages = bytes({"--page-tokens", "128"});
  EXPECT_GT(large_pages, plain);
  map.mutable_cache()->set_page_tokens(128);
  EXPECT_EQ(bytes({}), large_pages);
  EXPECT_EQ(bytes({"--page-tokens", "32"}), plain);
}

TEST_F(CliReplayTest, MapsThatDontFitAreRefused) {
  v1::BitMap map = SampleMap();
  map.mutable_geometry()->set_head_dim(64);
  const ProcessResult result = Replay({"--map", Write(map)});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(
      result.err,
      HasSubstr("the bit map is for 2 layers of 2 KV heads with head_dim 64 "
                "and 4 query heads; the capture, of toy, has 2 layers of 2 KV "
                "heads with head_dim 32 and 4 query heads"));

  map = SampleMap();
  map.mutable_width()->RemoveLast();
  ExpectUsageError({"--map", Write(map)},
                   "the bit map has 7 widths and 8 quantizers for 8 groups");
  map = SampleMap();
  map.set_quantizer_index(3, 2);
  ExpectUsageError({"--map", Write(map)}, "the bit map names quantizer 2 of 2");
  map = SampleMap();
  map.mutable_quantizers(0)->set_kind(static_cast<v1::Quantizer::Kind>(77));
  ExpectUsageError({"--map", Write(map)}, "quantizer kind 77 is not known");
  map = SampleMap();
  map.set_format_version(9);
  ExpectUsageError({"--map", Write(map)},
                   "the bit map is for packed format 9; supported is 1");
  map = SampleMap();
  map.clear_geometry();
  ExpectUsageError({"--map", Write(map)}, "the bit map has no geometry");
}

TEST_F(CliReplayTest, FilesThatArentMapsAreRefused) {
  for (const char* text : {"not json", "[]", "{\"unchanged\": true}", "7"}) {
    const std::string path = folder_.Write("bad.json", text);
    ExpectUsageError({"--map", path},
                     absl::StrCat("--map: ", path,
                                  " is not a bit map that 'ratequant bitmap "
                                  "get --json' printed: "));
  }
  ExpectUsageError({"--map", folder_.path() + "/none.json"},
                   "none.json: No such file or directory");
}

TEST_F(CliReplayTest, BadValuesAreNamed) {
  ExpectUsageError({}, "give the bit maps to try: --map, --uniform or both");
  ExpectUsageError({"--uniform", "kivi"},
                   "--uniform: 'kivi' is not "
                   "QUANTIZER:WIDTH");
  ExpectUsageError({"--uniform", "kivi:9"},
                   "'kivi:9' is not QUANTIZER:WIDTH "
                   "with a width from 1 to 8");
  ExpectUsageError({"--uniform", "awq:4"}, "rtn, kivi, quarot, turboquant, tcq");
  ExpectUsageError({"--uniform", "fp16", "--threads", "2000"},
                   "--threads: 2000 is not supported; at most 1024 are");
  ProcessResult result = Replay({"--uniform", "fp16", "--decode", "48"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("can't decode 48 tokens of sequences of "
                                    "48; supported are 1 to 47"));
  result = Replay({"--uniform", "fp16", "--page-tokens", "31"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("page_tokens 31"));
}

TEST_F(CliReplayTest, ACaptureThatCantBeReadIsNamed) {
  capture_ = folder_.path() + "/none";
  ExpectUsageError({"--uniform", "fp16"},
                   absl::StrCat("--capture: cannot open ", capture_,
                                ": No such file or directory"));
  capture_ = folder_.Write("text", "just some text");
  ExpectUsageError({"--uniform", "fp16"},
                   absl::StrCat("--capture: ", capture_, ": "));
}

}  // namespace
}  // namespace ratequant::testing
