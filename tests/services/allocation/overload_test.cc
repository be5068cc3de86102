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
                              [this, call](const grpc::Status& status) mutable {
                                // A channel must not end on gRPC's thread.
                                call.reset();
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

// Latencies of cached reads.
struct Reads {
  double p50 = 0;
  double p99 = 0;
};

Reads Summary(const std::vector<double>& seconds) {
  return {Quantile(seconds, 0.5), Quantile(seconds, 0.99)};
}

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

  Reads ReadAlone() {
    std::vector<double> seconds;
    for (int i = 0; i < 300; ++i) seconds.push_back(SecondsOf(Request()));
    return Summary(seconds);
  }

  // Cached reads beside four times the new budgets that `work` seconds each
  // allow; every one of these is answered or told to come back.
  Reads ReadBesideOverload(double work) {
    Flood flood(allocation_.get());
    std::atomic<bool> sent = false;
    // By absolute times: a late sender makes up for it.
    std::thread sender([&] {
      const auto begin = Clock::now();
      for (int i = 0; i < kOffered; ++i) {
        std::this_thread::sleep_until(
            begin + std::chrono::duration_cast<Clock::duration>(
                        std::chrono::duration<double>(i * work / 4)));
        flood.Send(NewQuery());
      }
      sent = true;
    });
    std::vector<double> seconds;
    while (!sent) seconds.push_back(SecondsOf(Request()));
    sender.join();
    Count(flood.Wait());
    return Summary(seconds);
  }

  void Count(const std::vector<absl::Status>& ended) {
    EXPECT_EQ(ended.size(), static_cast<size_t>(kOffered));
    for (const absl::Status& status : ended) {
      if (status.ok()) {
        ++answered_;
        continue;
      }
      ++shed_;
      ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_EQ(ErrorReason(status), "SERVER_BUSY");
      EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo")
                      .has_value());
    }
  }

  static constexpr int kOffered = 400;
  int asked_ = 0;
  int answered_ = 0, shed_ = 0;
};

TEST_F(OverloadTest,
       WorkIsShedWithATimeToComeBackAndCachedReadsKeepTheirLatency) {
  ASSERT_TRUE(
      Create("models/m", MakeCalibration({.layers = 40, .kv_heads = 8})).ok());
  SecondsOf(Request());
  // Rounds, as a machine with other work may spoil some. Through the queue a
  // read would wait for eight solves.
  bool kept = false;
  for (int round = 0; round < 10 && !kept; ++round) {
    std::vector<double> solves;
    for (int i = 0; i < 30; ++i) solves.push_back(SecondsOf(NewQuery()));
    const double work = Quantile(solves, 0.5);
    const Reads alone = ReadAlone();
    const Reads beside = ReadBesideOverload(work);
    kept = beside.p50 < 3 * alone.p50 && beside.p99 < 2 * work;
    std::printf(
        "a solve %.2f ms; cached reads alone p50 %.2f, p99 %.2f ms; at 4 times "
        "the load p50 %.2f, p99 %.2f ms\n",
        1e3 * work, 1e3 * alone.p50, 1e3 * alone.p99, 1e3 * beside.p50,
        1e3 * beside.p99);
  }
  EXPECT_TRUE(kept);
  EXPECT_GT(answered_, 0);
  EXPECT_GT(shed_, 0);
}

}  // namespace
}  // namespace ratequant::allocation
