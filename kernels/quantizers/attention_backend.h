#ifndef RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_BACKEND_H_
#define RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quantizers/visible_tokens.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {

// Measures the attention-output distortion on one device. One call at a time.
class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;

  // Sums over tokens of one checked capture,
  // [kv_heads][K, V][quantizers][widths]. Numbers that aren't finite make sums
  // that aren't, or DATA_LOSS.
  virtual absl::StatusOr<std::vector<double>> Measure(
      const AttentionCapture& capture) = 0;
};

inline TokenView ViewOf(const DistortionSweep::Options& options,
                        const AttentionParams& params) {
  return {params.sliding_window, options.sink_tokens, options.attention_window};
}

// Both take options that DistortionSweep::Create has checked, with
// query_heads. The first is the reference where options ask for it or the CPU
// has no vectors.
absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCpuAttentionBackend(
    const DistortionSweep::Options& options);
absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const DistortionSweep::Options& options);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_ATTENTION_BACKEND_H_
