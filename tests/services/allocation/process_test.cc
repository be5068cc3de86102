#include <sys/mount.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "ratequant/v1/admin_service.grpc.pb.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/status.h"
#include "tests/services/allocation/allocator_process.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using namespace std::chrono_literals;  // NOLINT
using ::ratequant::testing::AllocatorProcess;
using ::ratequant::testing::CalibrationSpec;
using ::ratequant::testing::MakeCalibration;
using ::ratequant::testing::TempDir;
using ::testing::HasSubstr;

// The real program, from outside.
class ProcessTest : public ::testing::Test {
 protected:
  std::unique_ptr<AllocatorProcess> Run(
      const std::vector<std::string>& arguments) {
    return std::make_unique<AllocatorProcess>(
        arguments, folder_.File("log" + std::to_string(++logs_)));
  }

  // Starts one that is meant to work.
  void Start(const std::string& data,
             const std::vector<std::string>& more = {}) {
    std::filesystem::remove(folder_.File("port"));
    std::vector<std::string> arguments = {"--data-dir",  data,
                                          "--address",   "127.0.0.1:0",
                                          "--port-file", folder_.File("port")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    process_ = Run(arguments);
    address_ = process_->WaitForAddress(folder_.File("port"));
    ASSERT_FALSE(address_.empty()) << process_->Log();
    auto channel =
        grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    registry_ = v1::RegistryService::NewStub(channel);
    allocation_ = v1::AllocationService::NewStub(channel);
  }

  absl::StatusOr<v1::Calibration> Create(const CalibrationSpec& spec) {
    v1::CreateCalibrationRequest request;
    request.set_parent("models/m");
    *request.mutable_calibration() = MakeCalibration(spec);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    v1::Calibration response;
    const grpc::Status status =
        registry_->CreateCalibration(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  absl::StatusOr<v1::Calibration> Get(const std::string& name) {
    v1::GetCalibrationRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    v1::Calibration response;
    const grpc::Status status =
        registry_->GetCalibration(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  absl::StatusOr<v1::GetBitMapResponse> GetBitMap(double effective_bits) {
    v1::GetBitMapRequest request;
    request.set_model("models/m");
    request.mutable_budget()->set_effective_bits(effective_bits);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    v1::GetBitMapResponse response;
    const grpc::Status status =
        allocation_->GetBitMap(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  TempDir folder_;
  int logs_ = 0;
  std::unique_ptr<AllocatorProcess> process_;
  std::string address_;
  std::unique_ptr<v1::RegistryService::StubInterface> registry_;
  std::unique_ptr<v1::AllocationService::StubInterface> allocation_;
};

TEST_F(ProcessTest, SigtermAndSigintStopItCleanly) {
  for (int signal : {SIGTERM, SIGINT}) {
    Start(folder_.File("data"));
    process_->Signal(signal);
    EXPECT_EQ(process_->Wait(), 0) << process_->Log();
    EXPECT_THAT(process_->Log(), HasSubstr("stopped"));
    EXPECT_FALSE(std::filesystem::exists(folder_.File("port")));
  }
}

TEST_F(ProcessTest, ACallInFlightFinishesBeforeItStops) {
  Start(folder_.File("data"));
  std::thread caller;
  absl::StatusOr<v1::Calibration> created = absl::UnknownError("not called");
  // A large one: parsing, checking, hashing and syncing take a while.
  caller = std::thread([&] {
    created = Create({.layers = 60, .kv_heads = 16, .head_dim = 128});
  });
  // Once it is there, the call is answered or on its way.
  for (int i = 0; i < 3000 && !Get("models/m/calibrations/latest").ok(); ++i) {
    std::this_thread::sleep_for(2ms);
  }
  process_->Signal(SIGTERM);
  caller.join();
  EXPECT_TRUE(created.ok()) << created.status();
  // The channel stays open and idle: gRPC alone would wait five seconds for it.
  const auto answered = std::chrono::steady_clock::now();
  EXPECT_EQ(process_->Wait(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - answered, 3s);
}

TEST_F(ProcessTest, WhatWasAcknowledgedSurvivesSigkill) {
  Start(folder_.File("data"));
  std::vector<v1::Calibration> acknowledged;
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    const auto created = Create({.seed = seed});
    ASSERT_TRUE(created.ok()) << created.status();
    acknowledged.push_back(*created);
  }
  process_->Signal(SIGKILL);
  EXPECT_EQ(process_->Wait(), 128 + SIGKILL);
  Start(folder_.File("data"));
  for (const v1::Calibration& calibration : acknowledged) {
    const auto got = Get(calibration.name());
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->SerializeAsString(), calibration.SerializeAsString());
  }
}

TEST_F(ProcessTest, SigkillInTheMiddleOfWritesLosesNothingThatWasAcknowledged) {
  // Four times over the same folder, killed while two writers and a solver are
  // at work, at another moment each time.
  std::vector<v1::Calibration> acknowledged;
  for (uint32_t round = 0; round < 4; ++round) {
    Start(folder_.File("data"));
    std::mutex mutex;
    std::atomic<bool> stop{false};
    std::atomic<int> count{0};
    std::vector<std::thread> writers;
    for (uint32_t writer = 0; writer < 2; ++writer) {
      writers.emplace_back([&, writer] {
        for (uint32_t i = 0; !stop; ++i) {
          const auto created =
              Create({.seed = round * 10000 + writer * 1000 + i});
          if (!created.ok()) return;
          std::lock_guard<std::mutex> lock(mutex);
          acknowledged.push_back(*created);
          ++count;
        }
      });
    }
    writers.emplace_back([&] {
      for (int i = 0; !stop; ++i) (void)GetBitMap(2.5 + 0.001 * i);
    });
    while (count < static_cast<int>(5 + 3 * round)) std::this_thread::yield();
    process_->Signal(SIGKILL);
    EXPECT_EQ(process_->Wait(), 128 + SIGKILL);
    stop = true;
    for (std::thread& writer : writers) writer.join();
  }
  Start(folder_.File("data"));
  for (const v1::Calibration& calibration : acknowledged) {
    const auto got = Get(calibration.name());
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->SerializeAsString(), calibration.SerializeAsString());
  }
  EXPECT_TRUE(GetBitMap(3).ok());
  process_->Signal(SIGTERM);
  EXPECT_EQ(process_->Wait(), 0);
  auto inspect = Run({"inspect", "--data-dir", folder_.File("data")});
  EXPECT_EQ(inspect->Wait(), 0) << inspect->Log();
}

TEST_F(ProcessTest, SigtermEndsWatchersPolitelyAndAtOnce) {
  Start(folder_.File("data"));
  ASSERT_TRUE(Create({}).ok());
  v1::GetBitMapRequest request;
  request.set_model("models/m");
  request.mutable_budget()->set_effective_bits(3);
  grpc::ClientContext context;
  const auto stream = allocation_->WatchBitMap(&context, request);
  v1::GetBitMapResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  const auto start = std::chrono::steady_clock::now();
  process_->Signal(SIGTERM);
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(stream->Finish())), "SERVER_STOPPING");
  EXPECT_EQ(process_->Wait(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 8s);
}

TEST_F(ProcessTest, InspectShowsAFolderInUseAndNamesWhatIsDamaged) {
  Start(folder_.File("data"));
  const auto created = Create({});
  ASSERT_TRUE(created.ok());
  ASSERT_TRUE(GetBitMap(3).ok());
  const auto inspect = [&](const std::string& folder) {
    auto process = Run({"inspect", "--data-dir", folder});
    const int code = process->Wait();
    return std::make_pair(code, process->Log());
  };
  auto [code, text] = inspect(folder_.File("data"));
  EXPECT_EQ(code, 0) << text;
  EXPECT_THAT(text, HasSubstr("calibrations"));
  EXPECT_THAT(text, HasSubstr("m  1 calibrations, newest " + created->name()));
  process_->Signal(SIGTERM);
  process_->Wait();
  {
    auto store = RocksDbStore::Open(folder_.File("data"));
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE((*store)
                    ->Write({{Table::kBitMaps, "m/c/q", "\xff\xff"}},
                            Durability::kSynced)
                    .ok());
  }
  std::tie(code, text) = inspect(folder_.File("data"));
  EXPECT_EQ(code, 1) << text;
  EXPECT_THAT(text, HasSubstr("damaged: bit_maps m/c/q"));
  std::tie(code, text) = inspect(folder_.File("nowhere"));
  EXPECT_EQ(code, 4) << text;
  EXPECT_THAT(text, HasSubstr(folder_.File("nowhere")));
}

TEST_F(ProcessTest, ABackupIsRestoredAndServed) {
  Start(folder_.File("data"), {"--backup-dir", folder_.File("backups")});
  const auto created = Create({});
  ASSERT_TRUE(created.ok());
  v1::CreateBackupRequest request;
  request.set_backup("monday");
  grpc::ClientContext context;
  v1::Backup backup;
  const grpc::Status made =
      v1::AdminService::NewStub(
          grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()))
          ->CreateBackup(&context, request, &backup);
  ASSERT_TRUE(made.ok()) << made.error_message();
  auto restore = Run({"restore", "--backup", backup.folder(), "--data-dir",
                      folder_.File("restored")});
  EXPECT_EQ(restore->Wait(), 0) << restore->Log();
  auto again = Run({"restore", "--backup", backup.folder(), "--data-dir",
                    folder_.File("restored")});
  EXPECT_EQ(again->Wait(), 4);
  EXPECT_THAT(again->Log(), HasSubstr("isn't empty"));
  process_->Signal(SIGKILL);
  process_->Wait();
  Start(folder_.File("restored"));
  EXPECT_EQ(Get(created->name())->SerializeAsString(),
            created->SerializeAsString());
}

TEST_F(ProcessTest, ASecondProcessOnTheSameDataFolderIsRefused) {
  Start(folder_.File("data"));
  auto second =
      Run({"--data-dir", folder_.File("data"), "--address", "127.0.0.1:0"});
  EXPECT_EQ(second->Wait(), 4);
  EXPECT_THAT(second->Log(), HasSubstr("another process has it open"));
  EXPECT_THAT(second->Log(), HasSubstr(folder_.File("data")));
  // The first one isn't bothered.
  EXPECT_TRUE(Create({}).ok());
}

TEST_F(ProcessTest, APortInUseIsRefused) {
  Start(folder_.File("data"));
  auto second =
      Run({"--data-dir", folder_.File("other"), "--address", address_});
  EXPECT_EQ(second->Wait(), 3);
  EXPECT_THAT(second->Log(), HasSubstr(address_));
  EXPECT_THAT(second->Log(), HasSubstr("already in use"));
}

TEST_F(ProcessTest, ADataFolderThatCannotBeUsedIsRefused) {
  std::ofstream(folder_.File("file")) << "x";
  auto process =
      Run({"--data-dir", folder_.File("file"), "--address", "127.0.0.1:0"});
  EXPECT_EQ(process->Wait(), 4);
  EXPECT_THAT(process->Log(), HasSubstr(folder_.File("file")));
}

TEST_F(ProcessTest, WrongFlagsAreNamed) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{}, "--data-dir is required"},
      {{"--data-dir", folder_.File("d"), "--colour"}, "--colour"},
      {{"--data-dir", folder_.File("d"), "--log-level", "loud"}, "loud"},
      {{"--data-dir", folder_.File("d"), "--address", "somewhere"},
       "somewhere"},
      {{"--data-dir", folder_.File("d"), "--address", "0.0.0.0:0"},
       "--insecure"}};
  for (const auto& [arguments, text] : cases) {
    auto process = Run(arguments);
    EXPECT_EQ(process->Wait(), 2) << process->Log();
    EXPECT_THAT(process->Log(), HasSubstr(text));
  }
}

TEST_F(ProcessTest, HelpShowsFlagsExamplesAndExitCodes) {
  auto process = Run({"--help"});
  EXPECT_EQ(process->Wait(), 0);
  for (const char* text :
       {"--address", "--data-dir", "--port-file", "--insecure", "--log-level",
        "Examples:", "Exit codes:"}) {
    EXPECT_THAT(process->Log(), HasSubstr(text));
  }
}

// A real file system without room, where this may be mounted.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    std::filesystem::create_directory(path);
    mounted_ = mount("tmpfs", path.c_str(), "tmpfs", 0, "size=24m") == 0;
    if (!mounted_) error_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::string& error() const { return error_; }

 private:
  const std::string path_;
  bool mounted_ = false;
  std::string error_;
};

TEST_F(ProcessTest, AFullDiskIsSaidAndLosesNothing) {
  SmallDisk disk(folder_.File("disk"));
  if (!disk.mounted()) {
    GTEST_SKIP() << "can't mount a small tmpfs here: " << disk.error();
  }
  Start(folder_.File("disk/data"));
  std::vector<v1::Calibration> acknowledged;
  absl::Status full = absl::OkStatus();
  for (uint32_t seed = 1; full.ok() && seed < 200; ++seed) {
    const auto created = Create({.layers = 30, .kv_heads = 8, .seed = seed});
    if (created.ok()) {
      acknowledged.push_back(*created);
    } else {
      full = created.status();
    }
  }
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_EQ(ErrorReason(full), "STORE_FULL");
  ASSERT_FALSE(acknowledged.empty());
  const auto expect_all = [&] {
    for (const v1::Calibration& calibration : acknowledged) {
      const auto got = Get(calibration.name());
      ASSERT_TRUE(got.ok()) << got.status();
      ASSERT_EQ(got->SerializeAsString(), calibration.SerializeAsString());
    }
  };
  expect_all();
  // A crash on the full disk; then somebody makes room.
  process_->Signal(SIGKILL);
  process_->Wait();
  ASSERT_EQ(mount("tmpfs", folder_.File("disk").c_str(), "tmpfs", MS_REMOUNT,
                  "size=200m"),
            0);
  Start(folder_.File("disk/data"));
  expect_all();
  EXPECT_TRUE(Create({.seed = 1000}).ok());
  process_->Signal(SIGTERM);
  EXPECT_EQ(process_->Wait(), 0);
}

}  // namespace
}  // namespace ratequant::allocation
