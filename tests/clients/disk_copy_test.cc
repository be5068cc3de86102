// The bit map on disk: what is kept, what is refused, and that processes which
// share it, one of them killed while it writes, never see half a map.

#include "clients/cpp/disk_copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/file_lock.h"
#include "clients/cpp/loaded_bit_map.h"
#include "tests/clients/sample_bit_map.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::client {
namespace {

using ::ratequant::testing::SampleAnswer;
using ::ratequant::testing::SampleQuery;
using ::ratequant::testing::TempDir;
using ::testing::HasSubstr;

SavedBitMap Saved(int width, absl::Time received) {
  return {.answer = SampleAnswer(width), .received = received};
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

class DiskCopyTest : public ::testing::Test {
 protected:
  // The width of the map that is kept; 0 and a failed test when none can be
  // used.
  int KeptWidth() const {
    const auto saved = copy_.Load();
    EXPECT_TRUE(saved.ok()) << saved.status();
    if (!saved.ok()) return 0;
    const auto loaded = LoadBitMap(saved->answer);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? (*loaded)->config.groups[0].width : 0;
  }

  const TempDir folder_;
  const DiskCopy copy_{folder_.File("maps"), SampleQuery()};
  const absl::Time now_ = absl::Now();
};

TEST_F(DiskCopyTest, AStoredMapIsLoadedAgain) {
  EXPECT_TRUE(absl::IsNotFound(copy_.Load().status()));
  const SavedBitMap saved = Saved(4, absl::FromUnixMicros(1234567890123456));
  ASSERT_TRUE(copy_.Store(saved).ok());
  const auto loaded = copy_.Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->received, saved.received);
  EXPECT_EQ(loaded->answer.SerializeAsString(),
            saved.answer.SerializeAsString());
}

TEST_F(DiskCopyTest, EveryQueryHasAFileOfItsOwn) {
  v1::GetBitMapRequest other = SampleQuery();
  other.mutable_budget()->set_effective_bits(5);
  const DiskCopy second(folder_.File("maps"), other);
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  EXPECT_TRUE(absl::IsNotFound(second.Load().status()));
  // Even when somebody puts it in the other's place.
  std::filesystem::copy_file(copy_.path(), second.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(second.Load().status()));
  EXPECT_THAT(std::string(second.Load().status().message()),
              HasSubstr("another query"));
}

TEST_F(DiskCopyTest, TheKnownEtagIsNoPartOfTheQuery) {
  v1::GetBitMapRequest request = SampleQuery();
  request.set_known_etag("abc");
  EXPECT_EQ(DiskCopy(folder_.File("maps"), request).path(), copy_.path());
}

TEST_F(DiskCopyTest, AnyChangedByteIsFound) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  const std::string whole = Read(copy_.path());
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x10);
    Write(copy_.path(), changed);
    const absl::Status status = copy_.Load().status();
    // A changed version is another version.
    EXPECT_TRUE(absl::IsDataLoss(status) ||
                (i >= 8 && i < 12 && absl::IsFailedPrecondition(status)))
        << "byte " << i << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(copy_.path()));
  }
}

TEST_F(DiskCopyTest, AFileCutShortOrGoneOnIsFound) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  const std::string whole = Read(copy_.path());
  for (size_t size = 0; size < whole.size(); ++size) {
    Write(copy_.path(), whole.substr(0, size));
    EXPECT_TRUE(absl::IsDataLoss(copy_.Load().status())) << size << " bytes";
  }
  Write(copy_.path(), whole + "x");
  EXPECT_TRUE(absl::IsDataLoss(copy_.Load().status()));
}

TEST_F(DiskCopyTest, AWrongMapUnderARightChecksumIsFound) {
  SavedBitMap saved = Saved(4, now_);
  saved.answer.mutable_bit_map()->set_width(0, 3);
  ASSERT_TRUE(copy_.Store(saved).ok());
  const auto loaded = copy_.Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(absl::IsDataLoss(LoadBitMap(loaded->answer).status()));
}

TEST_F(DiskCopyTest, WhatIsNoFileIsAnErrorAndNotWaitedFor) {
  std::filesystem::create_directories(copy_.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(copy_.Load().status()));
  std::filesystem::remove(copy_.path());
  ASSERT_EQ(mkfifo(copy_.path().c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(copy_.Load().status()));
}

TEST_F(DiskCopyTest, ADamagedFileIsReplaced) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  Write(copy_.path(), "not a map");
  ASSERT_TRUE(copy_.Store(Saved(5, now_)).ok());
  EXPECT_EQ(KeptWidth(), 5);
}

TEST_F(DiskCopyTest, AnOlderAnswerDoesNotReplaceALaterOne) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  ASSERT_TRUE(copy_.Store(Saved(5, now_ - absl::Seconds(1))).ok());
  EXPECT_EQ(KeptWidth(), 4);
  // One that a wrong clock dated into the future is replaced all the same.
  ASSERT_TRUE(copy_.Store(Saved(6, now_ + absl::Hours(24))).ok());
  ASSERT_TRUE(copy_.Store(Saved(7, now_)).ok());
  EXPECT_EQ(KeptWidth(), 7);
}

TEST_F(DiskCopyTest, AHeldLockIsAnErrorAfterSeconds) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  const auto held =
      FileLock::Acquire(absl::StrCat(copy_.path(), ".lock"),
                        absl::ZeroDuration(), Environment::Real());
  ASSERT_TRUE(held.ok());
  absl::Time now = now_;
  Environment environment = Environment::Real();
  environment.now = [&] { return now; };
  environment.sleep = [&](absl::Duration d) { now += d; };
  const DiskCopy waiting(folder_.File("maps"), SampleQuery(), environment);
  EXPECT_TRUE(absl::IsUnavailable(waiting.Store(Saved(5, now_))));
  EXPECT_EQ(KeptWidth(), 4);
}

// Runs `work` in a process of its own; its exit code, or 128 + the signal that
// killed it.
class Child {
 public:
  explicit Child(const std::function<int()>& work) : pid_(fork()) {
    if (pid_ == 0) _exit(work());
  }

  int Wait() const {
    int status = 0;
    if (waitpid(pid_, &status, 0) != pid_) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  const pid_t pid_;
};

// Files of this process can't grow over `bytes`: the write that would gets
// through in part, and the next one raises SIGXFSZ, which kills.
void LimitFiles(rlim_t bytes) {
  const rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
  setrlimit(RLIMIT_FSIZE, &limit);
}

TEST_F(DiskCopyTest, AProcessKilledWhileItWritesLeavesTheMapAndNoLock) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  const Child killed([&] {
    LimitFiles(100);
    return copy_.Store(Saved(5, absl::Now())).ok() ? 0 : 1;
  });
  ASSERT_EQ(killed.Wait(), 128 + SIGXFSZ);
  EXPECT_EQ(std::filesystem::file_size(absl::StrCat(copy_.path(), ".new")),
            100u);  // what it had got to
  EXPECT_EQ(KeptWidth(), 4);
  ASSERT_TRUE(copy_.Store(Saved(6, absl::Now())).ok());
  EXPECT_EQ(KeptWidth(), 6);
}

TEST_F(DiskCopyTest, AFullDiskIsAnErrorAndLeavesTheMap) {
  ASSERT_TRUE(copy_.Store(Saved(4, now_)).ok());
  const Child child([&] {
    signal(SIGXFSZ, SIG_IGN);  // EFBIG instead
    LimitFiles(100);
    return copy_.Store(Saved(5, absl::Now())).ok() ? 1 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(absl::StrCat(copy_.path(), ".new")));
  EXPECT_EQ(KeptWidth(), 4);
}

TEST_F(DiskCopyTest, ProcessesThatShareItNeverSeeHalfAMap) {
  ASSERT_TRUE(copy_.Store(Saved(2, absl::Now())).ok());
  constexpr int kStores = 40;
  std::vector<Child> children;
  for (int writer = 0; writer < 3; ++writer) {
    children.emplace_back([&, writer] {
      for (int i = 0; i < kStores; ++i) {
        if (!copy_.Store(Saved(3 + writer, absl::Now())).ok()) return 1;
      }
      return 0;
    });
  }
  for (int reader = 0; reader < 2; ++reader) {
    children.emplace_back([&] {
      for (int i = 0; i < 10 * kStores; ++i) {
        const auto saved = copy_.Load();
        if (!saved.ok() || !LoadBitMap(saved->answer).ok()) return 1;
      }
      return 0;
    });
  }
  for (const Child& child : children) EXPECT_EQ(child.Wait(), 0);
  EXPECT_GE(KeptWidth(), 3);
}

}  // namespace
}  // namespace ratequant::client
