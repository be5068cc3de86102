// BitMapSource over a mocked connection: where it starts from, when the engine
// gets a map, and what it refuses.

#include "clients/cpp/bit_map_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "clients/cpp/mocks/mock_connection.h"
#include "tests/clients/sample_bit_map.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::client {
namespace {

using ::ratequant::testing::SampleAnswer;
using ::ratequant::testing::SampleQuery;
using ::ratequant::testing::TempDir;
using ::testing::_;
using ::testing::HasSubstr;
using ::testing::NiceMock;

// Long enough for any machine; what is waited for comes at once.
constexpr absl::Duration kPatience = absl::Seconds(60);

// An allocator that is there or away and says what a test wants.
class FakeAllocator {
 public:
  std::unique_ptr<Connection> Connect() {
    auto connection = std::make_unique<NiceMock<MockConnection>>();
    ON_CALL(*connection, GetBitMap)
        .WillByDefault([this](const v1::GetBitMapRequest& request,
                              Cancellation* cancellation) {
          return Get(request, cancellation);
        });
    ON_CALL(*connection, WatchBitMap)
        .WillByDefault([this](const v1::GetBitMapRequest&,
                              const auto& on_answer,
                              Cancellation* cancellation) {
          return Watch(on_answer, cancellation);
        });
    return connection;
  }

  // What is answered from now on; an error ends the streams too.
  void Say(absl::StatusOr<v1::GetBitMapResponse> answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
    ++said_;
  }

  // Calls are neither answered nor refused.
  void BeSilent() {
    absl::MutexLock lock(&mutex_);
    silent_ = true;
  }

  // Waits until an answer was read by that many GetBitMap calls.
  void AwaitCalls(int calls) {
    absl::MutexLock lock(&mutex_);
    const auto made = [this, calls] { return calls_ >= calls; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&made), kPatience));
  }

 private:
  absl::StatusOr<v1::GetBitMapResponse> Get(const v1::GetBitMapRequest& request,
                                            Cancellation* cancellation) {
    {
      absl::MutexLock lock(&mutex_);
      ++calls_;
      if (!silent_) {
        if (answer_.ok() && answer_->etag() == request.known_etag()) {
          v1::GetBitMapResponse same;
          same.set_unchanged(true);
          same.set_etag(answer_->etag());
          return same;
        }
        return answer_;
      }
    }
    cancellation->notification().WaitForNotification();
    return absl::CancelledError();
  }

  absl::Status Watch(
      const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
      Cancellation* cancellation) {
    int seen = 0;
    while (!cancellation->cancelled()) {
      absl::StatusOr<v1::GetBitMapResponse> answer;
      {
        absl::MutexLock lock(&mutex_);
        const auto news = [this, seen] { return said_ > seen; };
        if (!mutex_.AwaitWithTimeout(absl::Condition(&news),
                                     absl::Milliseconds(5))) {
          continue;
        }
        seen = said_;
        answer = answer_;
      }
      if (!answer.ok()) return answer.status();
      on_answer(*answer);
    }
    return absl::CancelledError();
  }

  absl::Mutex mutex_;
  absl::StatusOr<v1::GetBitMapResponse> answer_ =
      absl::UnavailableError("connection refused");
  bool silent_ = false;
  int said_ = 0;
  int calls_ = 0;
};

int Width(const std::shared_ptr<const LoadedBitMap>& map) {
  return map == nullptr ? 0 : map->config.groups[0].width;
}

template <typename Condition>
bool Eventually(const Condition& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  return condition();
}

class BitMapSourceTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<BitMapSource>> Start(
      absl::Duration first_wait = kPatience) {
    return Start({.folder = folder_.path(), .first_wait = first_wait});
  }

  absl::StatusOr<std::unique_ptr<BitMapSource>> Start(
      BitMapSourceOptions options) {
    options.initial_backoff = absl::Milliseconds(1);
    options.max_backoff = absl::Milliseconds(2);
    v1::GetBitMapRequest query = SampleQuery();
    query.set_model("m");  // an id does
    return BitMapSource::Start(std::make_shared<Client>(allocator_.Connect()),
                               query, options);
  }

  // Leaves a map of that width on disk.
  void KeepOnDisk(int width) {
    ASSERT_TRUE(disk_.Store({SampleAnswer(width), absl::Now()}).ok());
  }

  bool Kept(int width) const {
    const auto saved = disk_.Load();
    return saved.ok() && saved->answer.etag() == SampleAnswer(width).etag();
  }

  const TempDir folder_;
  const DiskCopy disk_{folder_.path(), SampleQuery()};
  FakeAllocator allocator_;
};

TEST_F(BitMapSourceTest, StartsFromTheAllocatorAndKeepsTheMap) {
  allocator_.Say(SampleAnswer(4));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  const auto map = (*source)->Current();
  EXPECT_EQ(Width(map), 4);
  EXPECT_EQ(map->layout.layers.size(), 2u);
  EXPECT_FALSE((*source)->HasUpdate());
  EXPECT_TRUE(Eventually([&] { return Kept(4); }));
  EXPECT_TRUE((*source)->state().allocator.ok());
  EXPECT_EQ((*source)->state().received, 1);
}

TEST_F(BitMapSourceTest, StartsFromDiskWhenTheAllocatorIsAway) {
  KeepOnDisk(5);
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(Width((*source)->Current()), 5);
  EXPECT_EQ((*source)->state().received, 0);
  EXPECT_TRUE(absl::IsUnavailable((*source)->state().allocator));
  EXPECT_LE((*source)->state().confirmed, absl::Now());
  // And goes on with the allocator when it is back.
  allocator_.Say(SampleAnswer(4));
  EXPECT_TRUE(Eventually([&] { return (*source)->HasUpdate(); }));
  EXPECT_EQ(Width((*source)->TakeUpdate()), 4);
}

TEST_F(BitMapSourceTest, StartsFromDiskWhenTheAllocatorSaysNothing) {
  KeepOnDisk(5);
  allocator_.BeSilent();
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(Width((*source)->Current()), 5);
}  // and ends although a call still waits

TEST_F(BitMapSourceTest, StartsFromDiskWhenTheAllocatorRefusesTheQuery) {
  KeepOnDisk(5);
  allocator_.Say(absl::NotFoundError("models/m not found"));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(Width((*source)->Current()), 5);
  EXPECT_TRUE(Eventually(
      [&] { return absl::IsNotFound((*source)->state().allocator); }));
}

TEST_F(BitMapSourceTest, WithNeitherItFailsWithTheAllocatorsReason) {
  const absl::Status away = Start(absl::Milliseconds(50)).status();
  EXPECT_TRUE(absl::IsUnavailable(away)) << away;
  allocator_.Say(absl::NotFoundError("models/m not found"));
  const absl::Status refused = Start().status();
  EXPECT_TRUE(absl::IsNotFound(refused)) << refused;
}

TEST_F(BitMapSourceTest, ADamagedDiskCopyIsReportedAndNeverUsed) {
  KeepOnDisk(5);
  std::ofstream(disk_.path()) << "damaged";
  const absl::Status away = Start(absl::Milliseconds(50)).status();
  EXPECT_TRUE(absl::IsUnavailable(away)) << away;
  EXPECT_THAT(std::string(away.message()), HasSubstr(disk_.path()));
  // With the allocator there it is replaced.
  allocator_.Say(SampleAnswer(4));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(Width((*source)->Current()), 4);
  EXPECT_TRUE(Eventually([&] { return Kept(4); }));
}

TEST_F(BitMapSourceTest, TheEngineGetsANewMapOnlyWhenItAsks) {
  allocator_.Say(SampleAnswer(4));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->TakeUpdate(), nullptr);
  const auto before = (*source)->Current();
  allocator_.Say(SampleAnswer(3));
  EXPECT_TRUE(Eventually([&] { return (*source)->HasUpdate(); }));
  EXPECT_EQ((*source)->Current(), before);
  EXPECT_EQ(Width((*source)->TakeUpdate()), 3);
  EXPECT_EQ(Width((*source)->Current()), 3);
  EXPECT_EQ(Width(before), 4);  // for sequences that still use it
  EXPECT_EQ((*source)->TakeUpdate(), nullptr);
  EXPECT_TRUE(Eventually([&] { return Kept(3); }));
}

TEST_F(BitMapSourceTest, GoesOnAfterTheStreamEnded) {
  allocator_.Say(SampleAnswer(4));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  allocator_.Say(absl::UnavailableError("connection reset"));
  allocator_.AwaitCalls(4);
  EXPECT_FALSE((*source)->state().allocator.ok());
  EXPECT_EQ(Width((*source)->Current()), 4);
  allocator_.Say(SampleAnswer(6));
  EXPECT_TRUE(Eventually([&] { return (*source)->HasUpdate(); }));
  EXPECT_EQ(Width((*source)->TakeUpdate()), 6);
}

TEST_F(BitMapSourceTest, AMapThatIsNotWhatItsNameSaysIsRefused) {
  allocator_.Say(SampleAnswer(4));
  const auto source = Start();
  ASSERT_TRUE(source.ok()) << source.status();
  v1::GetBitMapResponse changed = SampleAnswer(3);
  changed.mutable_bit_map()->set_width(1, 8);
  allocator_.Say(changed);
  EXPECT_TRUE(Eventually(
      [&] { return absl::IsDataLoss((*source)->state().allocator); }));
  EXPECT_FALSE((*source)->HasUpdate());
  EXPECT_TRUE(Kept(4));
}

TEST_F(BitMapSourceTest, AMapForAnotherShapeIsRefusedFromAnywhere) {
  KeepOnDisk(5);
  allocator_.Say(SampleAnswer(4));
  const kv::KvGeometry larger = {.layers = 3, .kv_heads = 2, .head_dim = 64};
  const auto refused = Start({.folder = folder_.path(), .geometry = larger});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("this engine's model has 3 layers of 2 KV heads"));
  allocator_.Say(SampleAnswer(4, {.layers = 3}));
  EXPECT_TRUE(Start({.folder = folder_.path(), .geometry = larger}).ok());
}

TEST_F(BitMapSourceTest, AFolderThatCannotBeWrittenIsReportedNotFatal) {
  allocator_.Say(SampleAnswer(4));
  std::ofstream(folder_.File("file")) << "in the way";
  const auto source = Start({.folder = folder_.File("file/maps")});
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(Width((*source)->Current()), 4);
  EXPECT_TRUE(Eventually([&] { return !(*source)->state().disk.ok(); }));
}

}  // namespace
}  // namespace ratequant::client
