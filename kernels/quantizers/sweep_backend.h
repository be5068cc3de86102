#ifndef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_BACKEND_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quantizers/sweep/sums.h"
#include "ratequant/kv/distortion.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// The arguments of DistortionSweep::Add, checked.
struct SweepInput {
  int layer = 0;
  Tensor tensor = Tensor::kKey;
  int tokens = 0;
  const void* values = nullptr;
  const void* gradients = nullptr;
  DType dtype = DType::kFloat32;
};

// A number that can't be measured.
struct BadSweepElement {
  bool is_gradient = false;
  int head = 0;
  int64_t token = 0;
  int channel = 0;
  float value = 0;
};

// What an input held. With a bad element, the first one, nothing was added.
struct SweepAdded {
  bool has_nonzero = false;  // among the values that aren't sinks
  std::optional<BadSweepElement> bad;
};

// A sweep's sums and what adds to them on one device. One call at a time.
class SweepBackend {
 public:
  virtual ~SweepBackend() = default;

  virtual absl::StatusOr<SweepAdded> Add(const SweepInput& input) = 0;

  // [num_groups][SweepSums::Size], over everything added; then, laid out the
  // same, the squares of what each Add alone would have given, summed.
  virtual absl::StatusOr<std::vector<double>> Sums() const = 0;
};

// Tokens of one block: enough that every group of tokens is whole.
int SweepBlockTokens(const std::vector<QuantizerSpec>& quantizers);

// The layout of the options' sums. Widths aren't empty.
SweepSums SweepSumsOf(const DistortionSweep::Options& options);

inline size_t SweepGroupIndex(const DistortionSweep::Options& options,
                              int layer, int head, Tensor tensor) {
  return (static_cast<size_t>(layer) * options.kv_heads + head) * 2 +
         (tensor == Tensor::kValue ? 1 : 0);
}

// Both take options that DistortionSweep::Create has checked.
std::unique_ptr<SweepBackend> MakeCpuSweepBackend(
    const DistortionSweep::Options& options);
// UNAVAILABLE without the device, saying what there is instead.
absl::StatusOr<std::unique_ptr<SweepBackend>> MakeCudaSweepBackend(
    const DistortionSweep::Options& options);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_BACKEND_H_
