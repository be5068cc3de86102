#include "services/calibration/job_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"

namespace ratequant::calibration {
namespace {

// Jobs that say when they run, and end when they are told to.
class JobQueueTest : public ::testing::Test {
 protected:
  JobQueue::Job Job(const std::string& client, const std::string& name) {
    return {client,
            [this, name]() {
              {
                std::lock_guard<std::mutex> lock(mutex_);
                ran_.push_back(name);
              }
              return []() {};
            },
            [this, name](const JobQueue::Place& place) {
              std::lock_guard<std::mutex> lock(mutex_);
              places_.emplace_back(name, place.position);
              wait_ = place.wait;
            }};
  }

  // Takes a thread of the queue until `gate` opens; returns once it runs.
  void Block(JobQueue& queue, absl::Notification& gate) {
    absl::Notification runs;
    ASSERT_NE(queue.Add({"a",
                         [&]() {
                           runs.Notify();
                           gate.WaitForNotification();
                           return []() {};
                         },
                         [](const JobQueue::Place&) {}}),
              0u);
    runs.WaitForNotification();
  }

  std::vector<std::string> ran() {
    std::lock_guard<std::mutex> lock(mutex_);
    return ran_;
  }

  std::mutex mutex_;
  std::vector<std::string> ran_;
  std::vector<std::pair<std::string, int>> places_;
  absl::optional<absl::Duration> wait_;
};

TEST_F(JobQueueTest, ClientsTakeTurns) {
  JobQueue queue({.max_concurrent = 1, .max_waiting = 10});
  absl::Notification gate;
  Block(queue, gate);
  for (const char* name : {"a1", "a2", "a3"}) queue.Add(Job("a", name));
  for (const char* name : {"b1", "b2"}) queue.Add(Job("b", name));
  queue.Add(Job("c", "c1"));
  gate.Notify();
  EXPECT_TRUE(queue.WaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_EQ(ran(),
            (std::vector<std::string>{"b1", "c1", "a1", "b2", "a2", "a3"}));
}

TEST_F(JobQueueTest, TellsPlacesAsTheyChange) {
  JobQueue queue({.max_concurrent = 1, .max_waiting = 10});
  absl::Notification gate;
  Block(queue, gate);
  queue.Add(Job("a", "a1"));
  const uint64_t a2 = queue.Add(Job("a", "a2"));
  places_.clear();
  queue.Add(Job("b", "b1"));  // comes between
  EXPECT_EQ(places_, (std::vector<std::pair<std::string, int>>{
                         {"b1", 1}, {"a1", 2}, {"a2", 3}}));
  EXPECT_TRUE(queue.Remove(a2));
  EXPECT_FALSE(queue.Remove(a2));
  EXPECT_FALSE(queue.Remove(a2 + 100));
  gate.Notify();
  EXPECT_TRUE(queue.WaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_EQ(ran(), (std::vector<std::string>{"b1", "a1"}));
  EXPECT_FALSE(queue.Remove(a2 - 1));  // has run
}

TEST_F(JobQueueTest, TakesNoMoreThanMayWait) {
  JobQueue queue({.max_concurrent = 2, .max_waiting = 1});
  absl::Notification gate;
  Block(queue, gate);
  Block(queue, gate);
  EXPECT_NE(queue.Add(Job("a", "a1")), 0u);
  EXPECT_EQ(queue.Add(Job("b", "b1")), 0u);
  gate.Notify();
  EXPECT_TRUE(queue.WaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_EQ(ran(), (std::vector<std::string>{"a1"}));
}

TEST_F(JobQueueTest, RunsAJobAtOnceWhereNoneMayWait) {
  JobQueue queue({.max_concurrent = 1, .max_waiting = 0});
  for (int i = 0; i < 100; ++i) {
    // Whoever the epilogue tells can add the next job.
    absl::Notification ended;
    ASSERT_NE(queue.Add({"a", [&]() { return [&]() { ended.Notify(); }; },
                         [](const JobQueue::Place&) {}}),
              0u);
    ended.WaitForNotification();
  }
}

TEST_F(JobQueueTest, EstimatesTheWaitFromWhatJobsTook) {
  std::atomic<int> now{0};
  JobQueue queue({.max_concurrent = 1, .max_waiting = 10}, [&now]() {
    return absl::UnixEpoch() + absl::Seconds(now.load());
  });
  EXPECT_FALSE(queue.ExpectedWait().has_value());
  queue.Add({"a",
             [&now]() {
               now += 60;
               return []() {};
             },
             [](const JobQueue::Place&) {}});
  ASSERT_TRUE(queue.WaitIdle(absl::Now() + absl::Seconds(30)));
  absl::Notification gate;
  Block(queue, gate);
  queue.Add(Job("a", "a1"));
  EXPECT_EQ(wait_, absl::Seconds(30));  // what runs is half done
  queue.Add(Job("a", "a2"));
  EXPECT_EQ(wait_, absl::Seconds(90));
  EXPECT_EQ(queue.ExpectedWait(), absl::Seconds(150));
  gate.Notify();
}

TEST_F(JobQueueTest, WaitingForIdleEndsAtTheDeadline) {
  absl::Notification gate;
  JobQueue queue({.max_concurrent = 1, .max_waiting = 1});
  Block(queue, gate);
  EXPECT_FALSE(queue.WaitIdle(absl::Now() + absl::Milliseconds(20)));
  gate.Notify();
}

}  // namespace
}  // namespace ratequant::calibration
