#include "tests/gpu/sweep_bench.h"

#include <cstdio>
#include <vector>

#include "kernels/cuda/sweep.h"
#include "tests/gpu/bench_util.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kTokens = 512;  // of a sequence
constexpr int kSequences = 16;
constexpr int kBlockTokens = 32;

struct Model {
  const char* name;
  int layers;
  int kv_heads;
  int head_dim;
};

std::vector<QuantizerSpec> AllQuantizers() {
  std::vector<QuantizerSpec> all(5);
  all[0].kind = QuantizerKind::kRtn;
  all[1].kind = QuantizerKind::kKivi;
  all[2].kind = QuantizerKind::kQuarot;
  all[3].kind = QuantizerKind::kTurboquant;
  all[4].kind = QuantizerKind::kTcq;
  return all;
}

// Every launch gets tensors of its own, as in a calibration: none is in a
// cache.
void BenchModel(const Model& model) {
  const size_t elements = size_t(model.kv_heads) * kTokens * model.head_dim;
  const int launches = 2 * model.layers;  // K and V
  SweepTable table;
  Require(SweepTable::Create(model.head_dim, AllQuantizers(),
                             {1, 2, 3, 4, 5, 6, 7, 8}, nullptr, &table));
  const size_t size = table.sums().Size();
  const std::vector<uint16_t> rows = MakeHalves(elements * launches);
  DeviceBuffer<uint16_t> values, gradients;
  DeviceBuffer<double> partials, sums;
  DeviceBuffer<SweepReport> report;
  Require(values.Allocate(rows.size()));
  Require(values.CopyFrom(rows.data(), nullptr));
  Require(gradients.Allocate(rows.size()));
  Require(gradients.CopyFrom(rows.data(), nullptr));
  Require(partials.Allocate(model.kv_heads * kTokens / kBlockTokens * size));
  Require(sums.Allocate(launches * model.kv_heads * size));
  Require(cudaMemsetAsync(sums.data(), 0, sums.size() * sizeof(double)));
  Require(report.Allocate(1));
  SweepReport none;
  Require(report.CopyFrom(&none, nullptr));

  SweepLaunch launch;
  launch.table = &table;
  launch.dtype = DType::kFloat16;
  launch.heads = model.kv_heads;
  launch.tokens = kTokens;
  launch.block_tokens = kBlockTokens;
  launch.sink_tokens = 4;
  launch.partials = partials.data();
  launch.sums_stride = static_cast<int64_t>(size);
  launch.report = report.data();
  const double ms = MedianMs([&] {
    for (int i = 0; i < launches; ++i) {
      launch.tensor = i % 2 == 0 ? Tensor::kKey : Tensor::kValue;
      launch.values = values.data() + i * elements;
      launch.gradients = gradients.data() + i * elements;
      launch.sums = sums.data() + i * model.kv_heads * size;
      Require(LaunchSweep(launch, nullptr));
    }
  });
  Require(report.CopyTo(&none, nullptr));
  Require(cudaDeviceSynchronize());
  Require(StatusOfFault(none.fault));
  std::printf("%-28s %12.3f %12.1f %12.1f\n", model.name, ms, kSequences * ms,
              static_cast<double>(elements) * launches / ms * 1e-6);
}

}  // namespace

void BenchSweep() {
  std::printf(
      "\ndistortion sweep, 5 quantizers x 8 widths x 3 statistics, fp16, %d "
      "tokens, median of %d\n",
      kTokens, kRuns);
  std::printf("%-28s %12s %12s %12s\n", "model", "ms", "ms of 16", "G elem/s");
  for (const Model& model : {Model{"30 layers x 3 x 64", 30, 3, 64},
                             Model{"32 layers x 8 x 128", 32, 8, 128},
                             Model{"80 layers x 8 x 128", 80, 8, 128}}) {
    BenchModel(model);
  }
}

}  // namespace ratequant::kv::cuda
