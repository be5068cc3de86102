// Pictures and tables of bit maps, calibrations and curves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/curve_view.h"
#include "clients/cli/plot.h"
#include "clients/cli/quantizer_letters.h"
#include "clients/cli/width_picture.h"

namespace ratequant::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Width 1 + group mod 8 under quantizer (group / 2) mod (number of quantizers).
v1::BitMap Map(int layers, int heads,
               const std::vector<v1::Quantizer::Kind>& kinds) {
  v1::BitMap map;
  map.mutable_geometry()->set_layers(layers);
  map.mutable_geometry()->set_kv_heads(heads);
  map.mutable_geometry()->set_head_dim(64);
  for (auto kind : kinds) map.add_quantizers()->set_kind(kind);
  for (int group = 0; group < layers * heads * 2; ++group) {
    map.add_width(1 + group % 8);
    map.add_quantizer_index((group / 2) % kinds.size());
  }
  return map;
}

int LongestLine(const std::string& text) {
  int longest = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    longest = std::max(longest, DisplayWidth(line));
  }
  return longest;
}

TEST(WidthPictureTest, AMixShowsWidthAndQuantizerOfEveryGroup) {
  v1::BitMap map = Map(2, 3, {v1::Quantizer::KIVI, v1::Quantizer::TURBOQUANT});
  map.set_width(11, 16);
  EXPECT_EQ(RenderWidthPicture(map, {}),
            "   K         V\n"
            "0  1k 3t 5k  2k 4t 6k\n"
            "1  7t 1k 3t  8t 2k 16\n"
            "\n"
            "rows: layers; columns: KV heads 0-2; cells: bits and quantizer (k "
            "kivi, t turboquant); 16 is fp16\n");
}

TEST(WidthPictureTest, OneQuantizerShowsWidthsOnly) {
  v1::BitMap map = Map(2, 2, {v1::Quantizer::KIVI});
  map.set_width(0, 16);
  EXPECT_EQ(RenderWidthPicture(map, {}),
            "   K    V\n"
            "0  F 3  2 4\n"
            "1  5 7  6 8\n"
            "\n"
            "rows: layers; columns: KV heads 0-1; cells: bits; F is fp16\n");
}

TEST(WidthPictureTest, ManyLayersContinueToTheRight) {
  EXPECT_EQ(RenderWidthPicture(Map(18, 1, {v1::Quantizer::KIVI}), {}),
            "    K  V        K  V        K  V\n"
            " 0  1  2     6  5  6    12  1  2\n"
            " 1  3  4     7  7  8    13  3  4\n"
            " 2  5  6     8  1  2    14  5  6\n"
            " 3  7  8     9  3  4    15  7  8\n"
            " 4  1  2    10  5  6    16  1  2\n"
            " 5  3  4    11  7  8    17  3  4\n"
            "\n"
            "rows: layers; columns: KV heads; cells: bits\n");
}

TEST(WidthPictureTest, CellsCloseUpThenVGoesBelowThenHeadsAreSplit) {
  auto kinds = {v1::Quantizer::KIVI, v1::Quantizer::QUAROT};
  // 3 + 2 * 3 * 4 columns would be 28: gaps go first.
  EXPECT_THAT(RenderWidthPicture(Map(1, 4, kinds), {.columns = 24}),
              StartsWith("   K         V\n"
                         "0  1k3q5k7q  2k4q6k8q\n"
                         "\n"
                         "rows: "));
  EXPECT_THAT(RenderWidthPicture(Map(1, 4, kinds), {.columns = 15}),
              StartsWith("   K\n"
                         "0  1k 3q 5k 7q\n"
                         "\n"
                         "   V\n"
                         "0  2k 4q 6k 8q\n"));
  EXPECT_THAT(RenderWidthPicture(Map(1, 4, kinds), {.columns = 9}),
              StartsWith("   K heads 0-2\n"
                         "0  1k3q5k\n"
                         "\n"
                         "   K head 3\n"));
}

TEST(WidthPictureTest, FitsATerminalForEveryShape) {
  for (int heads : {1, 3, 8, 32, 64}) {
    for (int layers : {1, 30, 80}) {
      std::string picture = RenderWidthPicture(
          Map(layers, heads, {v1::Quantizer::KIVI, v1::Quantizer::TURBOQUANT}),
          {.columns = 100});
      EXPECT_LE(LongestLine(picture), 100) << layers << " x " << heads;
    }
  }
}

TEST(WidthPictureTest, ColourIsABackgroundPerWidth) {
  v1::BitMap map = Map(1, 1, {v1::Quantizer::KIVI});
  std::string picture = RenderWidthPicture(map, {.colour = true});
  EXPECT_THAT(picture, HasSubstr("\x1b[38;5;231;48;5;19m1\x1b[0m"));
  EXPECT_THAT(picture, HasSubstr("\x1b[38;5;231;48;5;32m2\x1b[0m"));
}

TEST(QuantizerLettersTest, AreAllDifferent) {
  v1::BitMap map = Map(1, 1,
                       {v1::Quantizer::KIVI, v1::Quantizer::KIVI,
                        v1::Quantizer::KIVI, v1::Quantizer::TURBOQUANT});
  map.mutable_quantizers(1)->set_group_size(64);
  EXPECT_THAT(QuantizerLetters(map.quantizers()),
              ElementsAre('k', 'K', 'a', 't'));
}

v1::BitMap WholeMap() {
  v1::BitMap map = Map(2, 1, {v1::Quantizer::KIVI, v1::Quantizer::TURBOQUANT});
  map.set_name("models/m/bitMaps/abc");
  map.set_calibration("models/m/calibrations/def");
  map.mutable_budget()->set_effective_bits(3);
  map.set_budget_left(0.0021);
  map.set_code_bits(2.5);
  map.set_effective_bits(2.9979);
  map.set_bytes_per_token(95.9);
  map.set_objective_value(0.02);
  map.set_uniform_objective_value(0.04);
  map.set_k_ceil_v_floor_objective_value(0.025);
  map.mutable_policy()->set_objective(v1::Policy::LOSS_PROJECTED);
  map.mutable_policy()->set_strategy(v1::Policy::ALLOCATED);
  map.mutable_policy()->set_max_width(8);
  map.mutable_cache()->set_sink_tokens(4);
  map.mutable_cache()->set_window(32);
  map.mutable_cache()->set_context_tokens(4096);
  return map;
}

TEST(BitMapViewTest, SummaryCountsAndPicture) {
  auto text = RenderBitMap(WholeMap(), {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text,
            "model        m\n"
            "bit map      abc\n"
            "calibration  def\n"
            "budget       3.000 effective bits per element (0.0021 left)\n"
            "cost         2.500 code bits, 2.998 effective bits per element\n"
            "             96 bytes per token, 5.34 times smaller than fp16\n"
            "predicted    loss +0.0100 nats per token\n"
            "             50% less than uniform (0.0200); 20% less than "
            "k-ceil-v-floor (0.0125)\n"
            "policy       allocated, loss-projected, up to 8 bits\n"
            "cache        first 4 and newest 32 tokens in fp16; bytes counted "
            "at 4,096 tokens\n"
            "\n"
            "GROUPS  QUANTIZER   1 bit  2 bit  3 bit  4 bit  ALL\n"
            "K       kivi            1      -      -      -    1\n"
            "K       turboquant      -      -      1      -    1\n"
            "V       kivi            -      1      -      -    1\n"
            "V       turboquant      -      -      -      1    1\n"
            "\n"
            "   K   V\n"
            "0  1k  2k\n"
            "1  3t  4t\n"
            "\n"
            "rows: layers; columns: KV heads; cells: bits and quantizer (k "
            "kivi, t turboquant)\n");
}

TEST(BitMapViewTest, OtherObjectivesAreNotCalledLoss) {
  v1::BitMap map = WholeMap();
  map.mutable_policy()->set_objective(v1::Policy::PAPER);
  map.set_uniform_objective_value(0);
  map.set_k_ceil_v_floor_objective_value(0.016);
  auto text = RenderBitMap(map, {});
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("predicted    objective 'paper' 0.0200\n"
                               "             no uniform map fits; 25% more "
                               "than k-ceil-v-floor (0.0160)\n"));
}

TEST(BitMapViewTest, UnderABudgetOfLossUniformIsComparedByCost) {
  v1::BitMap map = WholeMap();
  map.mutable_budget()->set_max_loss_increase(0.0101);
  auto text = RenderBitMap(map, {}, 127.9);
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("budget       loss increase of at most 0.0101 "
                               "nats per token (0.0021 left)\n"));
  EXPECT_THAT(*text,
              HasSubstr("predicted    loss +0.0100 nats per token\n"
                        "             25% less cost than the uniform map "
                        "within the same loss (128 bytes per token)\n"));
  EXPECT_THAT(*RenderBitMap(map, {}),
              HasSubstr("predicted    loss +0.0100 nats per token\n"
                        "policy "));
}

TEST(BitMapViewTest, TokensKeptInFp16AreSaidWhereThereAreAny) {
  v1::BitMap map = WholeMap();
  map.mutable_cache()->set_sink_tokens(0);
  EXPECT_THAT(*RenderBitMap(map, {}),
              HasSubstr("cache        newest 32 tokens in fp16;"));
  map.mutable_cache()->set_window(0);
  EXPECT_THAT(*RenderBitMap(map, {}),
              HasSubstr("cache        no tokens in fp16;"));
}

TEST(BitMapViewTest, AMapThatDoesNotFitItsShapeIsRefused) {
  v1::BitMap map = WholeMap();
  map.add_width(3);
  EXPECT_TRUE(absl::IsInternal(RenderBitMap(map, {}).status()));
  map = WholeMap();
  map.set_quantizer_index(0, 9);
  EXPECT_TRUE(absl::IsInternal(RenderBitMap(map, {}).status()));
}

TEST(ComparisonTest, SaysLessMoreOrNeither) {
  EXPECT_EQ(Comparison(0.5, 1), "50% less");
  EXPECT_EQ(Comparison(1.25, 1), "25% more");
  EXPECT_EQ(Comparison(1, 1), "no more");
  EXPECT_EQ(Comparison(1, 0), "");
}

TEST(PlotTest, DrawsLinesOverALogarithmicAxis) {
  PlotSeries line = {.name = "line", .mark = '*', .points = {{1, 100}, {3, 1}}};
  PlotSeries steps = {.name = "steps",
                      .mark = 'o',
                      .points = {{1, 100}, {2, 10}, {3, 1}},
                      .steps = true};
  PlotSpec spec = {
      .title = "loss", .x_label = "bits", .columns = 27, .rows = 7};
  EXPECT_EQ(RenderPlot(spec, {line, steps}, {}),
            "loss   * line   o steps\n"
            "100 |***oooooooooo\n"
            "    |   ****\n"
            " 22 |       ****\n"
            "    |           *****oooooooooo\n"
            "4.6 |                ****\n"
            "    |                    ****\n"
            "1.0 |                        ***\n"
            "    ++-----------+-----------+--\n"
            "     1.00        1.92        2.85\n"
            "     bits\n");
}

TEST(PlotTest, OnePointOrOneHeightIsNoPlot) {
  EXPECT_EQ(RenderPlot({}, {{.name = "a", .points = {{1, 1}}}}, {}), "");
  EXPECT_EQ(RenderPlot({}, {{.name = "a", .points = {{1, 2}, {2, 2}}}}, {}),
            "");
  EXPECT_EQ(RenderPlot({}, {}, {}), "");
}

TEST(CurveViewTest, TablePlotAndBudgetsWithoutAUniformMap) {
  v1::RateDistortionCurve curve;
  curve.set_calibration("models/m/calibrations/abc");
  for (int i = 0; i < 3; ++i) {
    auto* point = curve.add_points();
    point->set_effective_bits(2 + i);
    point->set_code_bits(1.5 + i);
    point->set_bytes_per_token(1000 * (2 + i));
    point->set_objective_value(0.2 / (1 << (2 * i)));
    point->set_uniform_objective_value(i == 0 ? 0 : 0.1);
    point->set_k_ceil_v_floor_objective_value(i == 0 ? 0 : 0.06);
  }
  curve.set_breakpoints(1234);
  std::string text = RenderCurve(curve, v1::Policy::LOSS_PROJECTED, {});
  EXPECT_THAT(
      text,
      HasSubstr(
          "model        m\n"
          "calibration  abc\n"
          "\n"
          "EFFECTIVE BITS  CODE BITS  BYTES/TOKEN  LOSS INCREASE  UNIFORM  "
          "AGAINST UNIFORM  K-CEIL-V-FLOOR\n"
          "         2.000      1.500        2,000          0.100        -  "
          "              -               -\n"
          "         3.000      2.500        3,000         0.0250   0.0500  "
          "       50% less        17% less\n"
          "         4.000      3.500        4,000        0.00625   0.0500  "
          "       88% less        79% less\n"
          "\n"
          "3 of 1,234 breakpoints\n"
          "\n"
          "predicted loss increase, nats per token   * allocated   o best "
          "uniform\n"));
  EXPECT_LE(LongestLine(text), 100);
  EXPECT_THAT(RenderCurve(curve, v1::Policy::MEASURED, {}),
              AllOf(HasSubstr("objective 'measured'"), HasSubstr("OBJECTIVE"),
                    Not(HasSubstr("LOSS"))));
}

}  // namespace
}  // namespace ratequant::cli
