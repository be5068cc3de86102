// The example engine: what a request's outputs are doesn't depend on maps that
// came while it ran, whatever else decodes beside it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clients/cpp/examples/decode_loop/engine.h"
#include "clients/cpp/handoff.h"
#include "tests/clients/capture_builder.h"
#include "tests/clients/sample_bit_map.h"

namespace ratequant::examples {
namespace {

using client::LoadedBitMap;
using ::ratequant::testing::CaptureBuilder;
using ::ratequant::testing::SampleAnswer;
using ::ratequant::testing::SampleShape;
using ::ratequant::testing::TempFolder;
using ::testing::HasSubstr;
using Map = std::shared_ptr<const LoadedBitMap>;

constexpr int kSequences = 3;  // of the capture

Map MapOf(int width, SampleShape shape = {.head_dim = 32}) {
  return *client::LoadBitMap(SampleAnswer(width, shape));
}

class DecodeLoopTest : public ::testing::Test {
 protected:
  DecodeLoopTest()
      : capture_(*replay::CaptureFile::Open(
            folder_.Write("capture", CaptureBuilder().Bytes()))) {}

  std::unique_ptr<Engine> MakeEngine(const EngineOptions& options, Map first,
                                     Engine::TakeUpdate take_update) {
    auto engine = Engine::Create(capture_, options, std::move(first),
                                 std::move(take_update));
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  // Checksums of each sequence, decoded alone with one map.
  std::vector<uint64_t> Alone(const Map& map) {
    auto engine = MakeEngine({.concurrency = 1, .requests = kSequences}, map,
                             [] { return nullptr; });
    std::vector<uint64_t> checksums;
    while (!engine->done()) {
      const auto step = engine->Step();
      EXPECT_TRUE(step.ok()) << step.status();
      if (!step.ok()) break;
      for (const Finished& done : step->finished) {
        checksums.push_back(done.checksum);
      }
    }
    return checksums;
  }

  const TempFolder folder_;
  const replay::CaptureFile capture_;
};

TEST_F(DecodeLoopTest, RunningRequestsFinishOnTheMapTheyBeganWith) {
  const Map old_map = MapOf(2), new_map = MapOf(8);
  Map update;
  auto engine =
      MakeEngine({.concurrency = kSequences, .requests = 2 * kSequences},
                 old_map, [&] { return std::exchange(update, nullptr); });
  std::vector<Finished> finished;
  for (int steps = 0; !engine->done(); ++steps) {
    if (steps == 5) update = new_map;
    const auto step = engine->Step();
    ASSERT_TRUE(step.ok()) << step.status();
    EXPECT_EQ(step->adopted, steps == 5 ? new_map : nullptr);
    // Between the swap and the end of the first requests there are two caches.
    EXPECT_EQ(engine->generations(), steps >= 5 && steps < 15 ? 2 : 1);
    finished.insert(finished.end(), step->finished.begin(),
                    step->finished.end());
  }
  ASSERT_EQ(finished.size(), 2u * kSequences);
  const std::vector<uint64_t> before = Alone(old_map), after = Alone(new_map);
  for (const Finished& done : finished) {
    const bool first_round = done.request < kSequences;
    EXPECT_EQ(done.etag, (first_round ? old_map : new_map)->etag);
    EXPECT_EQ(done.checksum, (first_round ? before : after)[done.sequence]);
    EXPECT_NE(before[done.sequence], after[done.sequence]);
  }
}

TEST_F(DecodeLoopTest, NoRequestSeesTwoMapsHoweverOftenTheyChange) {
  constexpr int kSwaps = 30;
  std::map<std::string, std::vector<uint64_t>> expected;
  std::vector<Map> maps;
  for (const int width : {2, 3, 4, 8}) {
    maps.push_back(MapOf(width));
    expected[maps.back()->etag] = Alone(maps.back());
  }
  client::Handoff<LoadedBitMap> handoff;
  handoff.Offer(maps[0]);
  auto engine = MakeEngine({.concurrency = 4}, handoff.Take(),
                           [&] { return handoff.Take(); });
  std::atomic<bool> done = false;
  std::thread watcher([&] {
    for (int i = 1; !done; ++i) {
      handoff.Offer(maps[i % maps.size()]);
      std::this_thread::yield();
    }
  });
  int swaps = 0, served = 0;
  while (swaps < kSwaps || served < kSwaps) {
    const auto step = engine->Step();
    EXPECT_TRUE(step.ok()) << step.status();
    if (!step.ok()) break;
    swaps += step->adopted != nullptr;
    served += static_cast<int>(step->finished.size());
    for (const Finished& request : step->finished) {
      EXPECT_EQ(request.checksum, expected[request.etag][request.sequence])
          << "request " << request.request;
    }
  }
  done = true;
  watcher.join();
}

TEST_F(DecodeLoopTest, AMapThatDoesNotFitIsRefusedAndTheOneBeforeStays) {
  Map update = MapOf(4, {.layers = 3, .head_dim = 32});
  const Map map = MapOf(4);
  auto engine = MakeEngine({.requests = 1}, map,
                           [&] { return std::exchange(update, nullptr); });
  const auto step = engine->Step();
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(step->adopted, nullptr);
  EXPECT_THAT(std::string(step->refused.message()), HasSubstr("3 layers"));
  EXPECT_EQ(engine->generations(), 1);
  while (!engine->done()) ASSERT_TRUE(engine->Step().ok());
}

TEST_F(DecodeLoopTest, OptionsOutOfRangeAreNamed) {
  const auto create = [&](const EngineOptions& options) {
    return Engine::Create(capture_, options, MapOf(4), [] { return nullptr; })
        .status();
  };
  EXPECT_THAT(std::string(create({.decode_tokens = 48}).message()),
              HasSubstr("supported are 1 to 47"));
  EXPECT_TRUE(absl::IsInvalidArgument(create({.decode_tokens = 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(create({.concurrency = 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(create({.requests = -1})));
}

}  // namespace
}  // namespace ratequant::examples
