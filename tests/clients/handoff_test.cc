// Changing maps between steps, under ThreadSanitizer: nothing is torn, nothing
// is lost, and what was in use lives as long as somebody uses it.

#include "clients/cpp/handoff.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace ratequant::client {
namespace {

// A map whose parts must belong together.
struct FakeMap {
  explicit FakeMap(int n) : etag(std::to_string(n)), widths(64, n) {}

  bool whole() const {
    for (const int width : widths) {
      if (std::to_string(width) != etag) return false;
    }
    return true;
  }

  std::string etag;
  std::vector<int> widths;
};

TEST(HandoffTest, AnOfferIsUsedFromTheNextTakeOn) {
  Handoff<FakeMap> handoff;
  EXPECT_EQ(handoff.Current(), nullptr);
  EXPECT_EQ(handoff.Take(), nullptr);
  handoff.Offer(std::make_shared<FakeMap>(1));
  EXPECT_EQ(handoff.Current(), nullptr);
  EXPECT_TRUE(handoff.HasOffer());
  EXPECT_EQ(handoff.Take()->etag, "1");
  EXPECT_EQ(handoff.Current()->etag, "1");
  EXPECT_FALSE(handoff.HasOffer());
  EXPECT_EQ(handoff.Take(), nullptr);
}

TEST(HandoffTest, TheNewestOfferCounts) {
  Handoff<FakeMap> handoff;
  handoff.Offer(std::make_shared<FakeMap>(1));
  handoff.Offer(std::make_shared<FakeMap>(2));
  EXPECT_EQ(handoff.Take()->etag, "2");
}

TEST(HandoffTest, OfferingWhatIsInUseTakesTheOtherOfferBack) {
  Handoff<FakeMap> handoff;
  handoff.Offer(std::make_shared<FakeMap>(1));
  handoff.Take();
  handoff.Offer(std::make_shared<FakeMap>(2));
  handoff.Offer(std::make_shared<FakeMap>(1));
  EXPECT_FALSE(handoff.HasOffer());
  EXPECT_EQ(handoff.Take(), nullptr);
}

TEST(HandoffTest, EnginesAndWatchersMayAllRunAtOnce) {
  constexpr int kMaps = 2000;
  Handoff<FakeMap> handoff;
  handoff.Offer(std::make_shared<FakeMap>(0));
  handoff.Take();
  std::atomic<int> torn = 0, backwards = 0;
  std::atomic<bool> done = false;
  std::thread watcher([&] {
    for (int n = 1; n <= kMaps; ++n) {
      handoff.Offer(std::make_shared<FakeMap>(n));
    }
    done = true;
  });
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      int last = 0;
      while (!done) {
        const auto map = handoff.Current();
        torn += !map->whole();
        backwards += map->widths[0] < last;
        last = map->widths[0];
      }
    });
  }
  // The engine: a sequence goes on with the map it began with while new ones
  // come and go.
  std::shared_ptr<const FakeMap> running = handoff.Current();
  int last = 0;
  for (bool finished = false; !finished;) {
    finished = done;
    if (const auto update = handoff.Take()) {
      torn += !update->whole();
      backwards += update->widths[0] <= last;
      last = update->widths[0];
    }
    torn += !running->whole();
  }
  watcher.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(backwards, 0);
  EXPECT_EQ(last, kMaps);
  EXPECT_EQ(running->etag, "0");
}

}  // namespace
}  // namespace ratequant::client
