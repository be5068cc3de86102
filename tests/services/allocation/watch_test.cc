// WatchBitMap through a real server over TCP.
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/service_fixture.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::MakeCalibration;

// Waits for `condition`, which other threads make true.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// A watcher that reads as long as it may, without a thread of its own.
class Stream : public grpc::ClientReadReactor<v1::GetBitMapResponse> {
 public:
  Stream(v1::AllocationService::Stub* stub, const v1::GetBitMapRequest& request)
      : request_(request) {
    stub->async()->WatchBitMap(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  ~Stream() override {
    context_.TryCancel();
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return done_; });
  }

  // The messages' etags; empty ones are "unchanged".
  std::vector<std::string> etags() {
    std::lock_guard<std::mutex> lock(mutex_);
    return etags_;
  }
  std::string last() {
    std::lock_guard<std::mutex> lock(mutex_);
    return etags_.empty() ? "" : etags_.back();
  }
  // What ended it, once it has.
  absl::Status WaitForEnd() {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(ended_.wait_for(lock, 60s, [this] { return done_; }));
    return status_;
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      etags_.push_back(message_.unchanged() ? "unchanged" : message_.etag());
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = FromGrpcStatus(status);
    done_ = true;
    ended_.notify_all();
  }

  const v1::GetBitMapRequest request_;
  grpc::ClientContext context_;
  v1::GetBitMapResponse message_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<std::string> etags_;  // guarded by mutex_
  absl::Status status_;             // guarded by mutex_
  bool done_ = false;               // guarded by mutex_
};

class WatchTest : public ServiceTest {
 protected:
  explicit WatchTest(AllocatorOptions options = {})
      : ServiceTest(std::move(options)) {
    Connect();
  }

  // A stub with a connection of its own.
  std::unique_ptr<v1::AllocationService::Stub> NewStub() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    // The window stays as small as it begins.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return v1::AllocationService::NewStub(grpc::CreateCustomChannel(
        server_->address(), grpc::InsecureChannelCredentials(), arguments));
  }
  void Connect() { stub_ = NewStub(); }

  std::unique_ptr<Stream> Watch(const v1::GetBitMapRequest& request) {
    return std::make_unique<Stream>(stub_.get(), request);
  }

  static v1::GetBitMapRequest Uniform(v1::GetBitMapRequest request) {
    request.mutable_policy()->set_strategy(v1::Policy::UNIFORM);
    return request;
  }

  // A measurement that lets `uniform` take the place of `map`; its name.
  std::string RecordWorse(const std::string& map, const std::string& uniform) {
    v1::Evaluation worse;
    worse.set_uniform_bit_map("models/m/bitMaps/" + uniform);
    worse.set_text_digest(std::string(64, 'a'));
    worse.set_tokens(1);
    worse.set_fp_perplexity(2);
    worse.set_uniform_perplexity(2);
    worse.set_perplexity(2 * std::exp(0.5));
    worse.set_loss_minus_uniform(0.5);
    worse.set_loss_minus_fp(0.5);
    const auto recorded = Record("models/m/bitMaps/" + map, worse);
    EXPECT_TRUE(recorded.ok()) << recorded.status();
    return recorded.ok() ? recorded->name() : "";
  }

  std::string Etag(const v1::GetBitMapRequest& request = Request()) {
    const auto answer = GetBitMap(request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? answer->etag() : "";
  }

  std::unique_ptr<v1::AllocationService::Stub> stub_;
};

void ExpectRetryInfo(const absl::Status& status, const std::string& reason) {
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ErrorReason(status), reason);
  const auto bytes =
      status.GetPayload("type.googleapis.com/google.rpc.RetryInfo");
  ASSERT_TRUE(bytes.has_value()) << status;
  google::rpc::RetryInfo info;
  ASSERT_TRUE(info.ParseFromString(std::string(*bytes)));
  EXPECT_EQ(info.retry_delay().seconds(), 1);
}

TEST_F(WatchTest, TheAnswerComesAtOnceAndAfterEveryChangeOfIt) {
  const auto first = Create("models/m", MakeCalibration());
  const auto stream = Watch(Request());
  const std::string before = Etag();
  ASSERT_TRUE(Eventually([&] { return stream->last() == before; }));
  // Another model's calibration is no change of this answer.
  ASSERT_TRUE(Create("models/other", MakeCalibration({.seed = 9})).ok());
  const auto second = Create("models/m", MakeCalibration({.seed = 2}));
  const std::string after = Etag();
  ASSERT_NE(after, before);
  ASSERT_TRUE(Eventually([&] { return stream->last() == after; }));
  // Deleting the newest brings the one before back.
  ASSERT_TRUE(Delete(second->name()).ok());
  ASSERT_TRUE(Eventually([&] { return stream->last() == before; }));
  EXPECT_EQ(stream->etags(), std::vector<std::string>({before, after, before}));
  // Without any calibration there is no answer.
  ASSERT_TRUE(Delete(first->name()).ok());
  ExpectError(stream->WaitForEnd(), kNotFound, "MODEL_NOT_FOUND");
  EXPECT_TRUE(Eventually([&] { return GetStatistics().watchers() == 0; }));
}

TEST_F(WatchTest, AnEvaluationThatChangesTheAnswerIsPushed) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  const std::string map = Etag(), uniform = Etag(Uniform(Request()));
  const auto stream = Watch(Request());
  ASSERT_TRUE(Eventually([&] { return stream->last() == map; }));
  ASSERT_FALSE(RecordWorse(map, uniform).empty());
  EXPECT_TRUE(Eventually([&] { return stream->last() == uniform; }));
}

TEST_F(WatchTest, AKnownEtagIsAnsweredUnchanged) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  v1::GetBitMapRequest request = Request();
  request.set_known_etag(Etag());
  const auto stream = Watch(request);
  ASSERT_TRUE(Eventually([&] { return stream->last() == "unchanged"; }));
  ASSERT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  EXPECT_TRUE(Eventually([&] { return stream->last() == Etag(); }));
}

TEST_F(WatchTest, BadRequestsEndAtOnce) {
  ExpectError(Watch(Request())->WaitForEnd(), kNotFound, "MODEL_NOT_FOUND");
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  v1::GetBitMapRequest request;
  request.set_model("models/m");
  ExpectError(Watch(request)->WaitForEnd(), kInvalid, "BUDGET_MISSING",
              "budget");
  request.set_model("m");
  ExpectError(Watch(request)->WaitForEnd(), kInvalid, "INVALID_NAME", "model");
}

int ThreadsOfThisProcess() {
  int threads = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    threads += entry.exists();
  }
  return threads;
}

TEST_F(WatchTest, ThousandsOfWatchersAllHearWithoutAThreadEach) {
  constexpr int kWatchers = 2500;
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  const int threads = ThreadsOfThisProcess();
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < kWatchers; ++i) {
    streams.push_back(Watch(Request(2.5 + 0.1 * (i % 10))));
  }
  const auto all_have = [&] {
    for (int i = 0; i < kWatchers; ++i) {
      const std::string etag = Etag(Request(2.5 + 0.1 * (i % 10)));
      if (!Eventually([&] { return streams[i]->last() == etag; })) return false;
    }
    return true;
  };
  ASSERT_TRUE(all_have());
  EXPECT_EQ(GetStatistics().watchers(), kWatchers);
  ASSERT_TRUE(Create("models/m", MakeCalibration({.seed = 2})).ok());
  EXPECT_TRUE(all_have());
  EXPECT_LT(ThreadsOfThisProcess(), threads + 50);
  for (const auto& stream : streams) EXPECT_EQ(stream->etags().size(), 2u);
  // Ten queries were solved for each calibration, however many watched.
  EXPECT_EQ(GetStatistics().solves(), 20);
  streams.clear();
  EXPECT_TRUE(Eventually([&] { return GetStatistics().watchers() == 0; }));
}

TEST_F(WatchTest, StoppingEndsWatchersPolitelyAndTheyResume) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  const std::string etag = Etag();
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 50; ++i) streams.push_back(Watch(Request()));
  for (const auto& stream : streams) {
    ASSERT_TRUE(Eventually([&] { return stream->last() == etag; }));
  }
  allocator_->StopWatches();
  for (const auto& stream : streams) {
    ExpectRetryInfo(stream->WaitForEnd(), "SERVER_STOPPING");
  }
  ExpectRetryInfo(Watch(Request())->WaitForEnd(), "SERVER_STOPPING");
  // Nothing holds the server up.
  const auto start = std::chrono::steady_clock::now();
  server_->Shutdown(30s);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  Restart();
  Connect();
  v1::GetBitMapRequest resumed = Request();
  resumed.set_known_etag(etag);
  const auto stream = Watch(resumed);
  EXPECT_TRUE(Eventually([&] { return stream->last() == "unchanged"; }));
}

TEST_F(WatchTest, AShutdownWithoutStoppingFirstEndsThemToo) {
  ASSERT_TRUE(Create("models/m", MakeCalibration()).ok());
  const auto stream = Watch(Request());
  ASSERT_TRUE(Eventually([&] { return !stream->last().empty(); }));
  server_->Shutdown(0s);
  EXPECT_FALSE(stream->WaitForEnd().ok());
}

// A watcher whose client doesn't read.
class SlowWatchTest : public WatchTest {
 protected:
  SlowWatchTest() : WatchTest({.watch_patience = 3s}) {}
};

TEST_F(SlowWatchTest, ASlowWatcherGetsTheNewestAndIsThenEndedPolitely) {
  // A map of 12,800 groups: a few fill the connection's window.
  ASSERT_TRUE(Create("models/m",
                     MakeCalibration({.layers = 200,
                                      .kv_heads = 32,
                                      .quantizers = {testing::DefaultQuantizer(
                                          v1::Quantizer::KIVI)}}))
                  .ok());
  v1::GetBitMapRequest request = Request(4.2);
  const std::string map = Etag(request), uniform = Etag(Uniform(request));
  ASSERT_NE(map, uniform);
  const auto quick = Watch(request);
  ASSERT_TRUE(Eventually([&] { return quick->last() == map; }));

  const auto slow_stub = NewStub();
  grpc::ClientContext context;
  const auto slow = slow_stub->WatchBitMap(&context, request);
  v1::GetBitMapResponse message;
  ASSERT_TRUE(slow->Read(&message));  // and no more for a while
  EXPECT_EQ(message.etag(), map);
  // The answer goes back and forth until the slow one has been given up.
  ASSERT_TRUE(Eventually([&] {
    const std::string worse = RecordWorse(map, uniform);
    v1::DeleteEvaluationRequest gone;
    gone.set_name(worse);
    EXPECT_TRUE(Call(*registry_, &RegistryStub::DeleteEvaluation, gone).ok());
    return GetStatistics().slow_watchers_ended() == 1;
  }));
  EXPECT_GT(GetStatistics().coalesced_updates(), 0);
  // The other one has heard everything that still is so.
  EXPECT_TRUE(Eventually([&] { return quick->last() == map; }));
  // What was on its way arrives, then the reason; or, when it reads too late
  // even for that, the end of the stream.
  while (slow->Read(&message)) {
  }
  const absl::Status status = FromGrpcStatus(slow->Finish());
  if (status.code() != absl::StatusCode::kCancelled) {
    ExpectRetryInfo(status, "WATCHER_TOO_SLOW");
  }
  // It can go on where it was.
  request.set_known_etag(map);
  const auto resumed = Watch(request);
  EXPECT_TRUE(Eventually([&] { return resumed->last() == "unchanged"; }));
}

}  // namespace
}  // namespace ratequant::allocation
