// What an allocator does with four times the work it can do.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using testing::MakeCalibration;
using Clock = std::chrono::steady_clock;

AllocatorOptions SmallQueue() {
  AllocatorOptions options;
  options.threads = 1;
  options.max_waiting = 8;
  return options;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * (values.size() - 1))];
}

// Calls that go on by themselves, and what became of them.
class Flood {
 public:
  explicit Flood(v1::AllocationService::StubInterface* stub) : stub_(stub) {}

  void Send(const v1::GetBitMapRequest& request) {
    auto call = std::make_shared<One>();
    call->request = request;
    call->context.set_deadline(std::chrono::system_clock::now() + 60s);
    ++open_;
    stub_->async()->GetBitMap(&call->context, &call->request, &call->response,
                              [this, call](const grpc::Status& status) {
                                const std::lock_guard<std::mutex> lock(mutex_);
                                ended_.push_back(FromGrpcStatus(status));
                                --open_;
                                all_ended_.notify_all();
                              });
  }

  std::vector<absl::Status> Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_ended_.wait(lock, [this] { return open_ == 0; });
    return ended_;
  }

 private:
  struct One {
    grpc::ClientContext context;
    v1::GetBitMapRequest request;
    v1::GetBitMapResponse response;
  };

  v1::AllocationService::StubInterface* const stub_;
  std::atomic<int> open_ = 0;
  std::mutex mutex_;
  std::condition_variable all_ended_;
  std::vector<absl::Status> ended_;  // guarded by mutex_
};

class OverloadTest : public ServiceTest {
 protected:
  OverloadTest() : ServiceTest(SmallQueue()) {}

  // A budget that nobody asked for before.
  v1::GetBitMapRequest NewQuery() { return Request(2.5 + 1e-4 * ++asked_); }

  double SecondsOf(const v1::GetBitMapRequest& request) {
    const auto begin = Clock::now();
    const auto answer = GetBitMap(request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  int asked_ = 0;
};

TEST_F(OverloadTest,
       WorkIsShedWithATimeToComeBackAndCachedReadsAreAllAnswered) {
  ASSERT_TRUE(
      Create("models/m", MakeCalibration({.layers = 40, .kv_heads = 8})).ok());
  std::vector<double> work, alone, beside;
  for (int i = 0; i < 30; ++i) work.push_back(SecondsOf(NewQuery()));
  const double capacity = 1 / Quantile(work, 0.5);
  SecondsOf(Request());
  for (int i = 0; i < 300; ++i) alone.push_back(SecondsOf(Request()));

  // By absolute times: a late sender makes up for it.
  const int offered = 400;
  Flood flood(allocation_.get());
  std::atomic<bool> sent = false;
  std::thread sender([&] {
    const auto begin = Clock::now();
    for (int i = 0; i < offered; ++i) {
      std::this_thread::sleep_until(
          begin + std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double>(i / (4 * capacity))));
      flood.Send(NewQuery());
    }
    sent = true;
  });
  while (!sent) beside.push_back(SecondsOf(Request()));
  sender.join();

  int answered = 0, shed = 0;
  for (const absl::Status& status : flood.Wait()) {
    if (status.ok()) {
      ++answered;
      continue;
    }
    ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(ErrorReason(status), "SERVER_BUSY");
    EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo")
                    .has_value());
    ++shed;
  }
  EXPECT_EQ(answered + shed, offered);
  EXPECT_GT(answered, 0);
  EXPECT_GT(shed, 0);
  ASSERT_FALSE(beside.empty());
  std::printf(
      "%.0f new budgets a second one after the other; %d offered at 4 times "
      "that: %d answered, %d shed; cached reads p50 %.2f ms (alone %.2f), p99 "
      "%.2f ms (alone %.2f), %d of them\n",
      capacity, offered, answered, shed, 1e3 * Quantile(beside, 0.5),
      1e3 * Quantile(alone, 0.5), 1e3 * Quantile(beside, 0.99),
      1e3 * Quantile(alone, 0.99), static_cast<int>(beside.size()));
}

}  // namespace
}  // namespace ratequant::allocation
