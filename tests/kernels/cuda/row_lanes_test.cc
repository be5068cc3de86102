// What lanes compute together has the bits of the scalar code. Sections alone
// don't show it: parameters are rounded to fp16.

#include "kernels/cuda/row_lanes.cuh"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/launch.h"
#include "kernels/quantizers/rotation.h"

namespace ratequant::kv::cuda {
namespace {

constexpr uint64_t kSeed = 0x1234567890ABCDEFull;

struct Rows {
  const float* values;  // [kRowsPerWarp, kMaxDim]
  float* rotated;       // the same
  float* restored;      // the same
  float* sums;          // [32], one a lane
};

template <class Lanes>
__device__ void Store(const typename Lanes::Values& values, float* rows) {
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    for (int i = 0; i < kOctet; ++i) {
      rows[Lanes::RowSlot() * Lanes::kMaxDim + Lanes::FirstChannel(octet) + i] =
          values[octet][i];
    }
  }
}

template <class Lanes>
__global__ void RunRows(Rows rows) {
  typename Lanes::Values values;
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    for (int i = 0; i < kOctet; ++i) {
      values[octet][i] = rows.values[Lanes::RowSlot() * Lanes::kMaxDim +
                                     Lanes::FirstChannel(octet) + i];
    }
  }
  rows.sums[Lanes::Lane()] = FoldSumOfRows<Lanes>(values);
  const SignBits<Lanes> signs = SignBits<Lanes>::Of(kSeed);
  RotateRows<Lanes>(signs, values);
  Store<Lanes>(values, rows.rotated);
  RotateRowsBack<Lanes>(signs, values);
  Store<Lanes>(values, rows.restored);
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class Lanes>
class RowLanesTest : public ::testing::Test {};
using Shapes = ::testing::Types<RowLanes<1, 1>, RowLanes<2, 1>, RowLanes<4, 1>,
                                RowLanes<8, 1>, RowLanes<16, 1>,
                                RowLanes<32, 1>, RowLanes<32, 2>>;
TYPED_TEST_SUITE(RowLanesTest, Shapes);

TYPED_TEST(RowLanesTest, SumsAndRotationsHaveTheBitsOfTheScalarCode) {
  using Lanes = TypeParam;
  constexpr int kDim = Lanes::kMaxDim;
  std::vector<float> signs;
  for (int c = 0; c < kDim; ++c) signs.push_back(RotationSign(kSeed, c));
  for (int round = 0; round < 8; ++round) {
    std::vector<float> values(Lanes::kRowsPerWarp * kDim);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] =
          static_cast<float>(static_cast<int64_t>(SplitMix64(round, i))) *
          1e-19f;
    }
    std::vector<float> rotated(values.size()), restored(values.size()),
        sums(32);
    const Status status = Launch(
        "RunRows", &RunRows<Lanes>, dim3(1), dim3(32), 0, nullptr,
        Rows{values.data(), rotated.data(), restored.data(), sums.data()});
    ASSERT_TRUE(status.ok()) << status.message();

    std::vector<float> expected_rotated, expected_restored, expected_sums;
    for (int row = 0; row < Lanes::kRowsPerWarp; ++row) {
      std::vector<float> x(values.begin() + row * kDim,
                           values.begin() + (row + 1) * kDim);
      std::vector<float> terms = x;
      expected_sums.insert(expected_sums.end(), Lanes::kLanes,
                           FoldSum(terms.data(), kDim));
      Rotate(signs.data(), x.data(), kDim);
      expected_rotated.insert(expected_rotated.end(), x.begin(), x.end());
      RotateBack(signs.data(), x.data(), kDim);
      expected_restored.insert(expected_restored.end(), x.begin(), x.end());
    }
    EXPECT_TRUE(SameBits(sums, expected_sums));
    EXPECT_TRUE(SameBits(rotated, expected_rotated));
    EXPECT_TRUE(SameBits(restored, expected_restored));
  }
}

}  // namespace
}  // namespace ratequant::kv::cuda
