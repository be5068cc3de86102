#include "tests/kernels/sweep/sweep_check.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/sweep.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/limits.h"
#include "kernels/reference/scalar_block.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kHeads = 2;
constexpr int kTokens = 64;
constexpr int kBlockTokens = 32;
constexpr double kBound = 1e-5;
const std::vector<int> kWidths = {1, 3, 8};

std::vector<QuantizerSpec> QuantizersFor(int head_dim) {
  QuantizerSpec rtn, kivi, quarot, turboquant, tcq;
  rtn.kind = QuantizerKind::kRtn;
  kivi.group_size = 8;
  quarot.kind = QuantizerKind::kQuarot;
  turboquant.kind = QuantizerKind::kTurboquant;
  tcq.kind = QuantizerKind::kTcq;
  if (!IsPowerOfTwo(head_dim)) return {rtn, kivi};
  return {rtn, kivi, quarot, turboquant, tcq};
}

// Elements of `dtype` that swing between +-`size`.
std::vector<uint8_t> MakeElements(const SweepCase& c, float size, float step) {
  const size_t count = size_t{kHeads} * kTokens * c.head_dim;
  std::vector<uint8_t> bytes(count * ElementSize(c.dtype));
  for (size_t i = 0; i < count; ++i) {
    StoreElement(std::sin(static_cast<float>(i) * step) * size, bytes.data(),
                 c.dtype, i);
  }
  return bytes;
}

struct Swept {
  Status status;
  std::vector<double> sums;  // [kHeads][SweepSums::Size]
  SweepReport report;
};

// One sweep in device memory.
class Sweeper {
 public:
  explicit Sweeper(const SweepCase& c) : case_(c) {}

  Swept Run(const std::vector<uint8_t>& values,
            const std::vector<uint8_t>& gradients) {
    Swept swept;
    swept.status = Start(values, gradients);
    if (!swept.status.ok()) return swept;
    swept.sums.resize(sums_.size());
    swept.status = sums_.CopyTo(swept.sums.data(), nullptr);
    if (swept.status.ok()) {
      swept.status = report_.CopyTo(&swept.report, nullptr);
    }
    if (swept.status.ok()) {
      swept.status = StatusOfCuda(cudaStreamSynchronize(nullptr), "the sweep");
    }
    return swept;
  }

 private:
  Status Start(const std::vector<uint8_t>& values,
               const std::vector<uint8_t>& gradients) {
    Status status =
        SweepTable::Create(case_.head_dim, QuantizersFor(case_.head_dim),
                           kWidths, nullptr, &table_);
    const size_t size = table_.sums().Size();
    const std::vector<double> zeros(kHeads * size);
    const SweepReport report;
    if (status.ok()) status = values_.Allocate(values.size());
    if (status.ok()) status = gradients_.Allocate(gradients.size());
    if (status.ok()) {
      status = partials_.Allocate(kHeads * kTokens / kBlockTokens * size);
    }
    if (status.ok()) status = sums_.Allocate(kHeads * size);
    if (status.ok()) status = report_.Allocate(1);
    if (status.ok()) status = values_.CopyFrom(values.data(), nullptr);
    if (status.ok()) status = gradients_.CopyFrom(gradients.data(), nullptr);
    if (status.ok()) status = sums_.CopyFrom(zeros.data(), nullptr);
    if (status.ok()) status = report_.CopyFrom(&report, nullptr);
    if (!status.ok()) return status;
    SweepLaunch launch;
    launch.table = &table_;
    launch.tensor = case_.tensor;
    launch.dtype = case_.dtype;
    launch.values = values_.data();
    launch.gradients = gradients_.data();
    launch.heads = kHeads;
    launch.tokens = kTokens;
    launch.block_tokens = kBlockTokens;
    launch.sink_tokens = case_.sink_tokens;
    launch.partials = partials_.data();
    launch.sums = sums_.data();
    launch.sums_stride = static_cast<int64_t>(size);
    launch.report = report_.data();
    status = LaunchSweep(launch, nullptr);
    if (!status.ok()) return status;
    // What was copied from goes out of scope.
    return StatusOfCuda(cudaStreamSynchronize(nullptr), "the sweep");
  }

  const SweepCase& case_;
  SweepTable table_;
  DeviceBuffer<uint8_t> values_, gradients_;
  DeviceBuffer<double> partials_, sums_;
  DeviceBuffer<SweepReport> report_;
};

// Of one head.
std::vector<double> Expected(const SweepCase& c, int head,
                             const std::vector<uint8_t>& values,
                             const std::vector<uint8_t>& gradients) {
  std::vector<double> sums;
  for (int token = 0; token < kTokens; token += kBlockTokens) {
    ScalarBlock block = {
        c.tensor,     c.head_dim,
        kBlockTokens, std::clamp(c.sink_tokens - token, 0, kBlockTokens),
        {},           {}};
    const size_t first = (size_t(head) * kTokens + token) * c.head_dim;
    for (size_t i = 0; i < size_t{kBlockTokens} * c.head_dim; ++i) {
      block.x.push_back(LoadElement(values.data(), c.dtype, first + i));
      block.y.push_back(LoadElement(gradients.data(), c.dtype, first + i));
    }
    const std::vector<double> part =
        MeasureBlock(block, QuantizersFor(c.head_dim), kWidths);
    sums.resize(part.size());
    for (size_t k = 0; k < part.size(); ++k) sums[k] += part[k];
  }
  return sums;
}

// How far sum number k may be from `expected`.
double BoundOf(const std::vector<double>& expected, size_t k, int head_dim) {
  const bool is_projection =
      k >= SweepSums::kPerGroup && (k - SweepSums::kPerGroup) % 3 == 2;
  if (!is_projection) return kBound * expected[k];
  return kBound *
         (expected[k] + std::sqrt(expected[k] * head_dim * expected[k - 1]));
}

}  // namespace

std::vector<SweepCase> SweepCases() {
  std::vector<SweepCase> cases;
  const char* const dtypes[] = {"fp32", "fp16", "bf16"};
  int next = 0;
  for (const int head_dim : {8, 16, 24, 32, 64, 80, 128, 256, 512}) {
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      const int dtype = next++ % 3;
      cases.push_back({std::string(tensor == Tensor::kKey ? "K_" : "V_") +
                           std::to_string(head_dim) + "_" + dtypes[dtype],
                       head_dim, tensor, static_cast<DType>(dtype),
                       head_dim == 64 ? 40 : 3});
    }
  }
  return cases;
}

std::string CheckSweep(const SweepCase& c) {
  const std::vector<uint8_t> values = MakeElements(c, 3.0f, 1.0f);
  const std::vector<uint8_t> gradients = MakeElements(c, 1e-3f, 0.7f);
  const Swept swept = Sweeper(c).Run(values, gradients);
  if (!swept.status.ok()) return swept.status.message();
  if (swept.report.fault != kNoFault) return "reports a fault";
  if (swept.report.has_nonzero != 1) return "finds no value but zero";
  const size_t size = swept.sums.size() / kHeads;
  for (int head = 0; head < kHeads; ++head) {
    const std::vector<double> expected = Expected(c, head, values, gradients);
    for (size_t k = 0; k < size; ++k) {
      const double sum = swept.sums[head * size + k];
      // Not a number is no less than the bound.
      if (std::fabs(sum - expected[k]) <= BoundOf(expected, k, c.head_dim)) {
        continue;
      }
      return "head " + std::to_string(head) + ": sum " + std::to_string(k) +
             " is " + std::to_string(sum) + " where " +
             std::to_string(expected[k]) + " is right";
    }
  }
  if (Sweeper(c).Run(values, gradients).sums != swept.sums) {
    return "other bits the second time";
  }
  return "";
}

std::string CheckSweepFaults() {
  const SweepCase c = {"", 64, Tensor::kKey, DType::kFloat32, 3};
  const std::vector<uint8_t> values = MakeElements(c, 3.0f, 1.0f);
  std::vector<uint8_t> gradients = values;
  for (int row = 40; row < kHeads * kTokens; ++row) {
    StoreElement(NAN, gradients.data(), c.dtype, row * c.head_dim + 5);
  }
  const Swept swept = Sweeper(c).Run(values, gradients);
  if (!swept.status.ok()) return swept.status.message();
  // Row 8 of block 1.
  if (swept.report.fault != MakeFaultWord(3, 8, 5, Fault::kNan)) {
    return "reports another fault: " + std::to_string(swept.report.fault);
  }
  const bool added = std::any_of(swept.sums.begin(), swept.sums.end(),
                                 [](double sum) { return sum != 0.0; });
  return added ? "adds to the sums in spite of a fault" : "";
}

}  // namespace ratequant::kv::cuda
