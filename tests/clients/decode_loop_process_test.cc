// The example engine as processes beside a real ratequant-allocator: a new
// calibration reaches them while they run, they outlive the allocator, share
// one folder, and start again without it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/client.h"
#include "tests/clients/capture_builder.h"
#include "tests/clients/process.h"
#include "tests/services/allocation/allocator_process.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kPatience = absl::Seconds(60);

// A bin/decode_loop that serves until it is told to stop.
class Engine {
 public:
  Engine(std::string output, const std::string& capture,
         const std::string& endpoint, const std::string& map_folder)
      : output_(std::move(output)),
        process_({"/bin/sh", "-c",
                  absl::StrCat("exec ", Program("decode_loop"),
                               " --model toy --capture ", capture,
                               " --decode-tokens 40 --endpoint ", endpoint,
                               " --map-folder ", map_folder, " >", output_)}) {}

  std::string Output() const {
    std::ifstream file(output_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Waits until `text` was printed `after` bytes into its output.
  bool Prints(const std::string& text, size_t after = 0) const {
    const auto printed = [&] {
      return Output().find(text, after) != std::string::npos;
    };
    const absl::Time deadline = absl::Now() + kPatience;
    while (!printed() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    return printed();
  }

  ProcessResult Stop() {
    process_.Signal(SIGTERM);
    return Wait();
  }

  ProcessResult Wait() { return process_.Wait(); }

 private:
  const std::string output_;
  Process process_;
};

class DecodeLoopProcessTest : public ::testing::Test {
 protected:
  std::unique_ptr<AllocatorProcess> StartAllocator() {
    return std::make_unique<AllocatorProcess>(
        std::vector<std::string>{"--data-dir", folder_.File("data"),
                                 "--address", "127.0.0.1:0", "--port-file",
                                 folder_.File("port")},
        folder_.File("log"));
  }

  // Stores a calibration of the capture's model; the etag of the map that is
  // the engines' answer then.
  std::string Publish(const std::string& endpoint, uint32_t seed) {
    client::ConnectionOptions options;
    options.allocator_endpoint = endpoint;
    client::Client client(options);
    const auto stored = client.CreateCalibration(
        "toy",
        MakeCalibration({.layers = 2,
                         .kv_heads = 2,
                         .query_heads = 4,
                         .head_dim = 32,
                         .quantizers = {DefaultQuantizer(v1::Quantizer::KIVI)},
                         .seed = seed}));
    EXPECT_TRUE(stored.ok()) << stored.status();
    v1::GetBitMapRequest request;
    request.set_model("models/toy");
    request.mutable_budget()->set_effective_bits(4);
    const auto answer = client.GetBitMap(request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? answer->etag() : "";
  }

  std::unique_ptr<Engine> StartEngine(const std::string& name,
                                      const std::string& endpoint) {
    return std::make_unique<Engine>(folder_.File(name), capture_, endpoint,
                                    folder_.File("maps"));
  }

  const TempDir folder_;
  const TempFolder capture_folder_;
  const std::string capture_ =
      capture_folder_.Write("capture", CaptureBuilder().Bytes());
};

TEST_F(DecodeLoopProcessTest, EnginesFollowTheAllocatorAndOutliveIt) {
  auto allocator = StartAllocator();
  const std::string endpoint = allocator->WaitForAddress(folder_.File("port"));
  ASSERT_NE(endpoint, "") << allocator->Log();
  const std::string first = Publish(endpoint, 1);
  std::vector<std::unique_ptr<Engine>> engines;
  for (const char* name : {"one", "two"}) {
    engines.push_back(StartEngine(name, endpoint));
    ASSERT_TRUE(engines.back()->Prints(absl::StrCat("first map ", first)))
        << engines.back()->Stop().err;
  }
  const std::string second = Publish(endpoint, 2);
  ASSERT_NE(first, second);
  for (const auto& engine : engines) {
    EXPECT_TRUE(engine->Prints(absl::StrCat("new map ", second)));
    EXPECT_TRUE(engine->Prints(absl::StrCat("  map ", second)));  // a request
  }
  allocator->Signal(SIGKILL);
  allocator->Wait();
  for (const auto& engine : engines) {
    EXPECT_TRUE(engine->Prints("request", engine->Output().size()));
    const ProcessResult stopped = engine->Stop();
    EXPECT_EQ(stopped.exit_code, 0);
    EXPECT_THAT(stopped.err, Not(HasSubstr("disk")));
  }
  // Started again with no allocator: from what the others kept.
  const auto again = StartEngine("again", endpoint);
  EXPECT_TRUE(again->Prints(absl::StrCat("first map ", second)));
  EXPECT_TRUE(again->Prints("request"));
  const ProcessResult stopped = again->Stop();
  EXPECT_EQ(stopped.exit_code, 0);
  EXPECT_THAT(stopped.err, Not(HasSubstr("disk")));
}

TEST_F(DecodeLoopProcessTest, WithoutAllocatorAndDiskCopyItSaysSo) {
  auto allocator = StartAllocator();
  const std::string endpoint = allocator->WaitForAddress(folder_.File("port"));
  // The model isn't known yet: a refusal ends the start at once.
  const auto engine = StartEngine("none", endpoint);
  ProcessResult ended = engine->Wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.err, HasSubstr("no model 'toy'"));
}

}  // namespace
}  // namespace ratequant::testing
