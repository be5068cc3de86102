// The sweep's kernels under ThreadSanitizer: any race ends the program.

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/sweep.h"
#include "kernels/quantizers/limits.h"
#include "tests/cuda_on_cpu/launch.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kTokens = 64;

std::vector<QuantizerSpec> QuantizersFor(int head_dim) {
  QuantizerSpec rtn, kivi, quarot, turboquant;
  rtn.kind = QuantizerKind::kRtn;
  kivi.group_size = 8;
  quarot.kind = QuantizerKind::kQuarot;
  turboquant.kind = QuantizerKind::kTurboquant;
  if (!IsPowerOfTwo(head_dim)) return {rtn, kivi};
  return {rtn, kivi, quarot, turboquant};
}

// Sums of two heads.
std::vector<double> SweepOnce(int head_dim, Tensor tensor,
                              std::vector<float> values) {
  SweepTable table;
  EXPECT_TRUE(SweepTable::Create(head_dim, QuantizersFor(head_dim), {1, 3},
                                 nullptr, &table)
                  .ok());
  const std::vector<float> gradients(values.rbegin(), values.rend());
  std::vector<double> partials(2 * kTokens / 32 * table.sums().Size());
  std::vector<double> sums(2 * table.sums().Size());
  SweepReport report;
  SweepLaunch launch;
  launch.table = &table;
  launch.tensor = tensor;
  launch.dtype = DType::kFloat32;
  launch.values = values.data();
  launch.gradients = gradients.data();
  launch.heads = 2;
  launch.tokens = kTokens;
  launch.block_tokens = 32;
  launch.sink_tokens = 3;
  launch.partials = partials.data();
  launch.sums = sums.data();
  launch.sums_stride = static_cast<int64_t>(table.sums().Size());
  launch.report = &report;
  EXPECT_TRUE(LaunchSweep(launch, nullptr).ok());
  EXPECT_EQ(report.has_nonzero, 1u);
  if (report.fault != kNoFault) sums.assign(1, PlaceOfFault(report.fault).row);
  return sums;
}

std::vector<float> MakeValues(int head_dim) {
  std::vector<float> values(size_t{2} * kTokens * head_dim);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::sin(static_cast<float>(i)) * 3.0f;
  }
  return values;
}

class SweepRaceFree : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(HeadDims, SweepRaceFree,
                         ::testing::Values(8, 24, 64, 128, 512));

TEST_P(SweepRaceFree, KernelsOfKAndV) {
  const ::cuda_on_cpu::ScopedSchedule schedule({.seed = 0, .workers = 2});
  const std::vector<float> values = MakeValues(GetParam());
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    const std::vector<double> sums = SweepOnce(GetParam(), tensor, values);
    ASSERT_GT(sums.size(), 1u);
    for (const double sum : sums) EXPECT_GT(sum, 0.0);
  }
}

TEST(SweepFaultsRaceFree, TheFirstOfManyIsReportedAndNothingAdded) {
  std::vector<float> values = MakeValues(64);
  for (int row = 9; row < kTokens; ++row) values[row * 64 + 1] = NAN;
  EXPECT_EQ(SweepOnce(64, Tensor::kKey, values), std::vector<double>{9});
}

}  // namespace
}  // namespace ratequant::kv::cuda
