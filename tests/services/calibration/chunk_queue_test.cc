#include "services/calibration/chunk_queue.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace ratequant::calibration {
namespace {

class ChunkQueueTest : public testing::Test {
 protected:
  bool Push(size_t bytes) {
    v1::CalibrateChunk chunk;
    chunk.mutable_tensor()->set_data(std::string(bytes, 'x'));
    return queue_.Push(std::move(chunk));
  }
  size_t Pop() {
    auto chunk = queue_.Pop(absl::Seconds(30), *cancel_);
    return chunk.ok() && chunk->has_value() ? (*chunk)->tensor().data().size()
                                            : 0;
  }

  int rooms_ = 0;  // how often the queue told of room
  ChunkQueue queue_{[this]() { ++rooms_; }};
  std::shared_ptr<CancelToken> cancel_ = *CancelToken::Create();
};

TEST_F(ChunkQueueTest, TakesAFewChunks) {
  for (size_t n = 1; n < ChunkQueue::kCapacity; ++n) EXPECT_TRUE(Push(n));
  EXPECT_FALSE(Push(ChunkQueue::kCapacity));
  EXPECT_EQ(rooms_, 0);
  for (size_t n = 1; n <= ChunkQueue::kCapacity; ++n) {
    EXPECT_EQ(Pop(), n);
    EXPECT_EQ(rooms_, 1);
  }
}

TEST_F(ChunkQueueTest, TakesNoMoreThanItsBytes) {
  const size_t half = ChunkQueue::kCapacityBytes / 2;
  EXPECT_TRUE(Push(half));
  EXPECT_FALSE(Push(2 * half));
  EXPECT_EQ(Pop(), half);
  EXPECT_EQ(rooms_, 0);  // What is left fills it still.
  EXPECT_EQ(Pop(), 2 * half);
  EXPECT_EQ(rooms_, 1);
  EXPECT_TRUE(Push(half));
}

TEST_F(ChunkQueueTest, EndsAfterWhatIsInIt) {
  Push(5);
  queue_.Close();
  EXPECT_EQ(Pop(), 5u);
  auto end = queue_.Pop(absl::Seconds(30), *cancel_);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_FALSE(end->has_value());
}

TEST_F(ChunkQueueTest, SilenceAndCancellationAreErrors) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      queue_.Pop(absl::Milliseconds(1), *cancel_).status()));
  cancel_->Cancel(absl::CancelledError("enough"));
  EXPECT_TRUE(
      absl::IsCancelled(queue_.Pop(absl::Seconds(30), *cancel_).status()));
}

}  // namespace
}  // namespace ratequant::calibration
