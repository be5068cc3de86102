#include "services/allocation/single_flight.h"

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ratequant::allocation {
namespace {

TEST(SingleFlightTest, CallsThatOverlapShareOneValue) {
  SingleFlight<int> flight;
  std::promise<void> begun, go;
  int made = 0;
  std::thread first([&] {
    EXPECT_EQ(flight.Do("key",
                        [&] {
                          begun.set_value();
                          go.get_future().wait();
                          return ++made;
                        }),
              1);
  });
  begun.get_future().wait();
  std::vector<std::thread> others;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back(
        [&] { EXPECT_EQ(flight.Do("key", [&] { return ++made; }), 1); });
  }
  // Another key doesn't wait.
  EXPECT_EQ(flight.Do("other", [] { return 7; }), 7);
  while (flight.shared() < 4) std::this_thread::yield();
  go.set_value();
  first.join();
  for (std::thread& other : others) other.join();
  EXPECT_EQ(made, 1);
  // What has been made isn't kept: that is a cache's business.
  EXPECT_EQ(flight.Do("key", [&] { return ++made; }), 2);
  EXPECT_EQ(flight.shared(), 4);
}

}  // namespace
}  // namespace ratequant::allocation
