#ifndef RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_SWEEP_H_
#define RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_SWEEP_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/quantizers/attention_backend.h"

namespace ratequant::kv {

// The part of a DistortionSweep that measures d2: checks what is added, and
// keeps the sums. One call at a time.
class AttentionSweep {
 public:
  // `options` have query_heads and all widths, and are checked but for what
  // only d2 needs: INVALID_ARGUMENT for that.
  static absl::StatusOr<std::unique_ptr<AttentionSweep>> Create(
      const DistortionSweep::Options& options);

  // See DistortionSweep::AddAttention.
  absl::Status Add(const AttentionCapture& capture);

  // FAILED_PRECONDITION when a layer didn't get `tokens` tokens besides sinks.
  absl::Status CheckComplete(int64_t tokens) const;

  // [num_groups][widths] of quantizer `quantizer`: means over `tokens`.
  std::vector<double> Means(int quantizer, int64_t tokens) const;

 private:
  AttentionSweep(const DistortionSweep::Options& options,
                 std::unique_ptr<AttentionBackend> backend);

  absl::Status CheckCall(const AttentionCapture& capture) const;
  // DATA_LOSS that names the first element that isn't finite.
  absl::Status FindBad(const AttentionCapture& capture) const;

  const DistortionSweep::Options options_;
  const size_t pairs_;  // quantizers * widths
  const std::unique_ptr<AttentionBackend> backend_;
  std::vector<double> sums_;     // [num_groups][quantizers][widths]
  std::vector<int64_t> tokens_;  // [layers] besides sinks
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_SWEEP_H_
