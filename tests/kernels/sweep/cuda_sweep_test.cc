// The CUDA sweep, run by the CPU, against the reference.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/cuda/device_buffer.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/cuda_on_cpu/runtime_api.h"
#include "tests/kernels/codec_test_util.h"
#include "tests/kernels/sweep/sweep_cases.h"

namespace ratequant::kv {

const SweepTarget kCuda = {"Cuda", Backend::kSimd, {DeviceKind::kCuda, 0}};

std::vector<SweepTarget> SweepTargets() { return {kCuda}; }

namespace {

// One layer of two heads: the CPU runs a block of the kernel in milliseconds.
DistortionSweep::Options MakeOptions(int dim, const SweepTarget& target) {
  DistortionSweep::Options options = MakeSweepOptions(dim, target);
  options.layers = 1;
  options.kv_heads = 2;
  return options;
}

DistortionTables Reference(DistortionSweep::Options options,
                           const std::vector<Capture>& captures, DType dtype) {
  options.device = {};
  options.backend = Backend::kReference;
  return Sweep(options, captures, dtype);
}

class SweepOnCuda : public testing::TestWithParam<std::tuple<int, DType>> {};

TEST_P(SweepOnCuda, IsWithinBoundsOfTheReference) {
  const auto [dim, dtype] = GetParam();
  const DistortionSweep::Options options = MakeOptions(dim, kCuda);
  const std::vector<Capture> captures = MakeCaptures(options, 1, 64, dtype);
  ExpectWithinBounds(Sweep(options, captures, dtype),
                     Reference(options, captures, dtype), dim);
}

// Every number of lanes to a row, full and not.
INSTANTIATE_TEST_SUITE_P(Shapes, SweepOnCuda,
                         testing::Values(std::tuple(8, DType::kFloat32),
                                         std::tuple(16, DType::kFloat16),
                                         std::tuple(24, DType::kFloat16),
                                         std::tuple(64, DType::kFloat32),
                                         std::tuple(64, DType::kFloat16),
                                         std::tuple(64, DType::kBFloat16),
                                         std::tuple(80, DType::kFloat32),
                                         std::tuple(128, DType::kBFloat16),
                                         std::tuple(256, DType::kFloat16),
                                         std::tuple(512, DType::kBFloat16)));

TEST(SweepOnCudaBlocks, ThatDoNotFitInSharedMemoryAreMeasuredToo) {
  DistortionSweep::Options options = MakeOptions(512, kCuda);
  // 512 KiB of float32 to a block.
  options.quantizers = {QuantizerSpec{.group_size = 128}};
  options.widths = {2, 5};
  const std::vector<Capture> captures =
      MakeCaptures(options, 1, 128, DType::kFloat32);
  ExpectWithinBounds(Sweep(options, captures, DType::kFloat32),
                     Reference(options, captures, DType::kFloat32), 512);
}

TEST(SweepOnCudaSinks, MayFillWholeBlocksAndGroups) {
  DistortionSweep::Options options = MakeOptions(64, kCuda);
  options.sink_tokens = 40;
  const std::vector<Capture> captures =
      MakeCaptures(options, 1, 64, DType::kFloat16);
  ExpectWithinBounds(Sweep(options, captures, DType::kFloat16),
                     Reference(options, captures, DType::kFloat16), 64);
}

// The tables name the calibration that is stored under their digest.
TEST(SweepOnCudaBits, DoNotDependOnTheOrderOfThreadsAndBlocks) {
  const DistortionSweep::Options options = MakeOptions(64, kCuda);
  const std::vector<Capture> captures =
      MakeCaptures(options, 2, 64, DType::kFloat32);
  const DistortionTables expected = Sweep(options, captures, DType::kFloat32);
  for (const uint32_t seed : {1u, 2u}) {
    const ::cuda_on_cpu::ScopedSchedule schedule(
        {.seed = seed, .workers = 1 + seed});
    ExpectSameTables(Sweep(options, captures, DType::kFloat32), expected);
  }
}

TEST(SweepOnCudaGradients, AnyScaleGivesTheSameRelativeTables) {
  const DistortionSweep::Options options = MakeOptions(16, kCuda);
  std::vector<Capture> captures = MakeCaptures(options, 1, 32, DType::kFloat32);
  const DistortionTables base = Sweep(options, captures, DType::kFloat32);
  for (const int exponent : {-100, 90}) {
    std::vector<Capture> scaled = captures;
    for (Capture& c : scaled) {
      for (float& y : c.gradients) y = std::ldexp(y, exponent);
    }
    const DistortionTables tables = Sweep(options, scaled, DType::kFloat32);
    for (size_t i = 0; i < base.g2.size(); ++i) {
      EXPECT_EQ(tables.g2[i], std::ldexp(base.g2[i], 2 * exponent));
    }
    for (size_t i = 0; i < base.tables[3].c2.size(); ++i) {
      EXPECT_EQ(tables.tables[3].c2[i],
                std::ldexp(base.tables[3].c2[i], 2 * exponent));
    }
  }
}

// Tensors of a calibration in device memory, each `offset` bytes into its
// buffer.
DistortionTables SweepDeviceMemory(const DistortionSweep::Options& options,
                                   const std::vector<Capture>& captures,
                                   size_t offset) {
  auto sweep = DistortionSweep::Create(options);
  EXPECT_TRUE(sweep.ok()) << sweep.status();
  for (const Capture& c : captures) {
    const size_t bytes = c.values.size() * sizeof(float);
    cuda::DeviceBuffer<char> values, gradients;
    EXPECT_TRUE(values.Allocate(offset + bytes).ok());
    EXPECT_TRUE(gradients.Allocate(offset + bytes).ok());
    cudaMemcpyAsync(values.data() + offset, c.values.data(), bytes,
                    cudaMemcpyHostToDevice);
    cudaMemcpyAsync(gradients.data() + offset, c.gradients.data(), bytes,
                    cudaMemcpyHostToDevice);
    const absl::Status added =
        (*sweep)->Add(c.layer, c.tensor, c.tokens, values.data() + offset,
                      gradients.data() + offset, DType::kFloat32);
    EXPECT_TRUE(added.ok()) << added;
  }
  return *(*sweep)->Finish();
}

TEST(SweepOnCudaMemory, MayBeTheHostsOrTheDevicesAligned) {
  const DistortionSweep::Options options = MakeOptions(16, kCuda);
  const std::vector<Capture> captures =
      MakeCaptures(options, 1, 32, DType::kFloat32);
  const DistortionTables host = Sweep(options, captures, DType::kFloat32);
  ExpectSameTables(SweepDeviceMemory(options, captures, 0), host);
  ExpectSameTables(SweepDeviceMemory(options, captures, 4), host);
}

TEST(SweepOnCudaDevices, WhatIsNotThereIsNamed) {
  const auto expect_refused = [](int ordinal, absl::StatusCode code,
                                 const std::string& message) {
    DistortionSweep::Options options = MakeOptions(64, kCuda);
    options.device.ordinal = ordinal;
    const auto sweep = DistortionSweep::Create(options);
    EXPECT_EQ(sweep.status().code(), code);
    EXPECT_EQ(sweep.status().message(), message);
  };
  expect_refused(1, absl::StatusCode::kUnavailable,
                 "there is no CUDA device 1; the runtime finds 1, from 0 on");
  expect_refused(-1, absl::StatusCode::kInvalidArgument,
                 "CUDA device -1 is negative");
  const ::cuda_on_cpu::ScopedDeviceCount none(0);
  expect_refused(0, absl::StatusCode::kUnavailable,
                 "there is no CUDA device: no CUDA-capable device is detected");
}

}  // namespace
}  // namespace ratequant::kv
