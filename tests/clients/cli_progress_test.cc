// The progress of a calibration, on a terminal and off it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "clients/cli/progress.h"

namespace ratequant::cli {
namespace {

using v1::CalibrateProgress;

CalibrateProgress Capturing(int64_t elapsed, uint64_t done,
                            int64_t remaining = -1) {
  CalibrateProgress progress;
  progress.set_phase(CalibrateProgress::CAPTURING);
  progress.mutable_elapsed()->set_seconds(elapsed);
  progress.set_tokens_done(done);
  progress.set_tokens_total(1000);
  if (remaining >= 0) progress.mutable_remaining()->set_seconds(remaining);
  return progress;
}

CalibrateProgress Phase(CalibrateProgress::Phase phase, int64_t elapsed) {
  CalibrateProgress progress;
  progress.set_phase(phase);
  progress.mutable_elapsed()->set_seconds(elapsed);
  return progress;
}

TEST(BarTest, FillsByWholeColumnsInAscii) {
  EXPECT_EQ(RenderBar(0, 4, {}), "----");
  EXPECT_EQ(RenderBar(0.49, 4, {}), "#---");
  EXPECT_EQ(RenderBar(0.5, 4, {}), "##--");
  EXPECT_EQ(RenderBar(1, 4, {}), "####");
}

TEST(BarTest, FillsByEighthsInUnicode) {
  TextStyle style = {.unicode = true};
  EXPECT_EQ(RenderBar(0.125, 4, style), "▌░░░");
  EXPECT_EQ(RenderBar(0.25, 4, style), "█░░░");
  EXPECT_EQ(RenderBar(0.999, 2, style), "█▉");
  EXPECT_EQ(RenderBar(1, 2, style), "██");
}

TEST(BarTest, NeverLeavesItsColumns) {
  EXPECT_EQ(RenderBar(-1, 3, {}), "---");
  EXPECT_EQ(RenderBar(7, 3, {}), "###");
}

TEST(ProgressViewTest, AQueuedCallSaysWhereItStands) {
  std::ostringstream out;
  ProgressView view(&out, {}, /*live=*/false);
  CalibrateProgress queued = Phase(CalibrateProgress::QUEUED, 2);
  queued.set_queue_position(3);
  view.Update(queued);
  queued.mutable_elapsed()->set_seconds(20);
  queued.set_queue_position(1);
  queued.mutable_expected_wait()->set_seconds(90);
  view.Update(queued);
  EXPECT_EQ(out.str(),
            "queued at place 3, 2 s\n"
            "queued at place 1, its turn in about 1 min 30 s, 20 s\n");
}

TEST(ProgressViewTest, ALiveLineIsRedrawnAndTakenDown) {
  std::ostringstream out;
  {
    ProgressView view(&out, {.columns = 100}, /*live=*/true);
    view.Update(Phase(CalibrateProgress::LOADING, 2));
    view.Update(Capturing(5, 0));
    view.Update(Capturing(15, 500, 10));
    view.Update(Phase(CalibrateProgress::DONE, 30));
  }
  EXPECT_EQ(out.str(),
            "\rloading the model  2 s\x1b[K"
            "\rcapturing  ------------------------------    0%  0/1,000 "
            "tokens\x1b[K"
            "\rcapturing  ###############---------------   50%  500/1,000 "
            "tokens  50 tokens/s  10 s left\x1b[K"
            "\r\x1b[K");
}

TEST(ProgressViewTest, ANarrowTerminalGetsAShorterBarThenNone) {
  std::ostringstream narrow;
  ProgressView view(&narrow, {.columns = 50}, /*live=*/true);
  view.Update(Capturing(5, 500));
  EXPECT_EQ(narrow.str(),
            "\rcapturing  #######-------   50%  500/1,000 tokens\x1b[K");

  std::ostringstream tiny;
  ProgressView none(&tiny, {.columns = 20}, /*live=*/true);
  none.Update(Capturing(5, 500));
  EXPECT_EQ(tiny.str(), "\rcapturing   50%  50\x1b[K");
}

TEST(ProgressViewTest, PlainLinesComeOnNewPhasesTenthsAndEveryTenSeconds) {
  std::ostringstream out;
  ProgressView view(&out, {}, /*live=*/false);
  view.Update(Phase(CalibrateProgress::LOADING, 0));
  view.Update(Phase(CalibrateProgress::LOADING, 5));   // too soon
  view.Update(Phase(CalibrateProgress::LOADING, 10));  // ten seconds later
  view.Update(Capturing(11, 0));
  view.Update(Capturing(12, 90));       // not a tenth yet
  view.Update(Capturing(13, 100, 18));  // a tenth
  view.Update(Capturing(23, 150, 90));  // ten seconds later
  view.Update(Phase(CalibrateProgress::FITTING, 24));
  EXPECT_EQ(out.str(),
            "loading the model, 0 s\n"
            "loading the model, 10 s\n"
            "capturing: 0%, 0/1,000 tokens\n"
            "capturing: 10%, 100/1,000 tokens, 50 tokens/s, 18 s left\n"
            "capturing: 15%, 150/1,000 tokens, 13 tokens/s, 1 min 30 s left\n"
            "fitting curves, 24 s\n");
}

TEST(ProgressViewTest, ASlowRateHasADecimal) {
  std::ostringstream out;
  ProgressView view(&out, {}, /*live=*/false);
  view.Update(Capturing(0, 1));
  view.Update(Capturing(100, 131));
  EXPECT_THAT(out.str(),
              ::testing::HasSubstr("131/1,000 tokens, 1.3 tokens/s\n"));
}

TEST(ProgressViewTest, RateLeavesTheModelsLoadingOut) {
  std::ostringstream out;
  ProgressView view(&out, {}, /*live=*/false);
  view.Update(Capturing(100, 100));
  view.Update(Capturing(110, 300));
  EXPECT_THAT(out.str(), ::testing::HasSubstr("30%, 300/1,000 tokens, 20 "
                                              "tokens/s\n"));
}

}  // namespace
}  // namespace ratequant::cli
