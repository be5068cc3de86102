#include "kernels/cuda/sweep_table.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/limits.h"
#include "kernels/quantizers/sweep/traits.h"

namespace ratequant::kv::cuda {
namespace {

Status CheckQuantizer(const QuantizerSpec& spec, int head_dim, bool* rotates) {
  const std::optional<SweepTraits> traits = SweepTraitsOf(spec);
  if (!traits.has_value()) {
    return InvalidArgument("quantizer kind " +
                           std::to_string(static_cast<int>(spec.kind)) +
                           " isn't one that the sweep measures");
  }
  if (traits->rotates && !IsPowerOfTwo(head_dim)) {
    return InvalidArgument("head_dim " + std::to_string(head_dim) +
                           " isn't supported; supported: powers of two from 8 "
                           "to 512 where heads are rotated");
  }
  *rotates |= traits->rotates;
  return Status();
}

SweepCodebooks MakeCodebooks(int head_dim) {
  SweepCodebooks codebooks = {};
  for (int width = kMinCodeWidth; width <= kMaxCodeWidth; ++width) {
    const Codebook& codebook = GetCodebook(head_dim, width);
    const std::ptrdiff_t entries = std::ptrdiff_t{1} << width;
    std::copy_n(codebook.thresholds.begin(), entries - 1,
                codebooks.thresholds + entries);
    std::copy_n(codebook.units.begin(), entries, codebooks.units + entries);
  }
  for (int width = 1; width <= kMaxTrellisWidth; ++width) {
    codebooks.trellises[width - 1] = MakeTrellisTables(head_dim, width);
  }
  return codebooks;
}

}  // namespace

Status SweepTable::Create(int head_dim,
                          const std::vector<QuantizerSpec>& quantizers,
                          const std::vector<int>& widths, cudaStream_t stream,
                          SweepTable* table) {
  if (!IsHeadDim(head_dim)) {
    return InvalidArgument("head_dim " + std::to_string(head_dim) +
                           " isn't supported; supported: multiples of 8 from " +
                           std::to_string(kMinHeadDim) + " to " +
                           std::to_string(kMaxHeadDim));
  }
  if (quantizers.empty() || widths.empty()) {
    return InvalidArgument("a sweep without quantizers or widths");
  }
  for (const int width : widths) {
    if (IsCodeWidth(width)) continue;
    return InvalidArgument("width " + std::to_string(width) +
                           " isn't supported; supported: 1 to 8 bits");
  }
  if (widths.size() > kMaxCodeWidth) {
    return InvalidArgument("a width comes twice");
  }
  bool rotates = false;
  for (const QuantizerSpec& spec : quantizers) {
    const Status status = CheckQuantizer(spec, head_dim, &rotates);
    if (!status.ok()) return status;
  }

  SweepTable fresh;
  fresh.head_dim_ = head_dim;
  fresh.widths_ = widths;
  Status status = fresh.quantizers_.Allocate(quantizers.size());
  if (status.ok())
    status = fresh.quantizers_.CopyFrom(quantizers.data(), stream);
  SweepCodebooks codebooks;
  if (status.ok() && rotates) {
    codebooks = MakeCodebooks(head_dim);
    status = fresh.codebooks_.Allocate(1);
    if (status.ok()) status = fresh.codebooks_.CopyFrom(&codebooks, stream);
  }
  if (status.ok()) {
    status = StatusOfCuda(cudaStreamSynchronize(stream),
                          "copying a sweep table to the device");
  }
  if (status.ok()) *table = std::move(fresh);
  return status;
}

}  // namespace ratequant::kv::cuda
