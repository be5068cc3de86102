#ifndef RATEQUANT_KERNELS_CUDA_SWEEP_TABLE_H_
#define RATEQUANT_KERNELS_CUDA_SWEEP_TABLE_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/trellis_tables.h"
#include "kernels/quantizers/sweep/sums.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/quantizer_spec.h"

namespace ratequant::kv::cuda {

// All codebooks of a head_dim, and its trellises: 2^w levels of width w at
// [2^w, 2^(w + 1)), the last threshold of each not used.
struct SweepCodebooks {
  static constexpr int kEntries = 2 << kMaxCodeWidth;
  float thresholds[kEntries];
  float units[kEntries];
  TrellisTables trellises[kMaxTrellisWidth];  // from width 1 on
};

// What a sweep measures, in device memory. Immutable after creation and
// thread-safe; must outlive the launches that use it.
class SweepTable {
 public:
  // `quantizers` are in the registry and go with `head_dim`; `widths`, 1 to 8
  // bits, are ascending. Waits for `stream`. INVALID_ARGUMENT names what isn't
  // supported.
  static Status Create(int head_dim,
                       const std::vector<QuantizerSpec>& quantizers,
                       const std::vector<int>& widths, cudaStream_t stream,
                       SweepTable* table);

  int head_dim() const { return head_dim_; }
  const std::vector<int>& widths() const { return widths_; }
  SweepSums sums() const {
    return {static_cast<int>(quantizers_.size()),
            static_cast<int>(widths_.size())};
  }

  const QuantizerSpec* quantizers() const { return quantizers_.data(); }
  // Null where no quantizer rotates.
  const SweepCodebooks* codebooks() const { return codebooks_.data(); }

 private:
  int head_dim_ = 0;
  std::vector<int> widths_;
  DeviceBuffer<QuantizerSpec> quantizers_;
  DeviceBuffer<SweepCodebooks> codebooks_;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SWEEP_TABLE_H_
