// What the sweep's launcher and table refuse before anything runs.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/sweep.h"
#include "kernels/cuda/sweep_table.h"

namespace ratequant::kv::cuda {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const Status& status, const std::string& text) {
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
  EXPECT_THAT(status.message(), HasSubstr(text));
}

class SweepLauncher : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SweepTable::Create(16, {QuantizerSpec{.group_size = 16}}, {4},
                                   nullptr, &table_)
                    .ok());
    launch_.table = &table_;
    launch_.values = launch_.gradients = rows_;
    launch_.heads = 1;
    launch_.tokens = launch_.block_tokens = 32;
    launch_.partials = launch_.sums = sums_;
    launch_.report = &report_;
  }

  void ExpectLaunchRefused(const std::string& text) {
    ExpectRefused(LaunchSweep(launch_, nullptr), text);
  }

  SweepTable table_;
  alignas(16) uint16_t rows_[32 * 16] = {};
  double sums_[8] = {};
  SweepReport report_;
  SweepLaunch launch_;
};

TEST_F(SweepLauncher, RefusesNumbersThatAreNotSupported) {
  EXPECT_TRUE(LaunchSweep(launch_, nullptr).ok());
  launch_.block_tokens = 48;
  ExpectLaunchRefused("block_tokens 48 isn't supported; supported: 32, 64");
  launch_.block_tokens = 32;
  launch_.tokens = 48;
  ExpectLaunchRefused("tokens 48 isn't supported; supported: multiples of");
  launch_.tokens = 32;
  launch_.heads = 0;
  ExpectLaunchRefused("heads 0");
  launch_.heads = 1 << 28;
  ExpectLaunchRefused("heads 268435456");
  launch_.heads = 1;
  launch_.sink_tokens = -1;
  ExpectLaunchRefused("sink_tokens -1");
  launch_.sink_tokens = 0;
  launch_.dtype = static_cast<DType>(7);
  ExpectLaunchRefused("dtype 7 isn't supported; supported: 0 (fp32)");
  launch_.dtype = DType::kFloat16;
  launch_.tensor = static_cast<Tensor>(2);
  ExpectLaunchRefused("tensor 2");
}

TEST_F(SweepLauncher, RefusesMemoryThatIsMissingOrNotAligned) {
  launch_.values = rows_ + 1;
  ExpectLaunchRefused("values or gradients are null or not a multiple of 16");
  launch_.values = rows_;
  launch_.partials = nullptr;
  ExpectLaunchRefused("partials, sums or report are null");
  SweepTable empty;
  launch_.table = &empty;
  ExpectLaunchRefused("no sweep table");
}

TEST(SweepTable, RefusesWhatItCannotMeasure) {
  SweepTable table;
  const auto create = [&](int head_dim, int kind, std::vector<int> widths) {
    QuantizerSpec spec;
    spec.kind = static_cast<QuantizerKind>(kind);
    return SweepTable::Create(head_dim, {spec}, widths, nullptr, &table);
  };
  ExpectRefused(create(60, 1, {4}), "head_dim 60");
  ExpectRefused(create(80, 4, {4}),
                "head_dim 80 isn't supported; supported: "
                "powers of two");
  ExpectRefused(create(64, 9, {4}), "quantizer kind 9 isn't one");
  ExpectRefused(create(64, 1, {0}), "width 0");
  ExpectRefused(create(64, 1, {1, 2, 3, 4, 5, 6, 7, 8, 8}), "comes twice");
  ExpectRefused(create(64, 1, {}), "without quantizers or widths");
}

}  // namespace
}  // namespace ratequant::kv::cuda
