#ifndef RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_BACKEND_H_
#define RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_BACKEND_H_

#include <utility>
#include <vector>

#include "kernels/quantizers/attention_backend.h"
#include "kernels/quantizers/group_decoder.h"

namespace ratequant::kv {

// The oracle of d2: attention's output computed twice in double, with the
// group's own rows and with the decoded ones, and nothing taken from one for
// the other.
class ReferenceAttentionBackend final : public AttentionBackend {
 public:
  // The decoders are of K and V.
  ReferenceAttentionBackend(const DistortionSweep::Options& options,
                            GroupDecoder keys, GroupDecoder values)
      : options_(options), keys_(std::move(keys)), values_(std::move(values)) {}

  absl::StatusOr<std::vector<double>> Measure(
      const AttentionCapture& capture) override;

 private:
  const DistortionSweep::Options options_;
  const GroupDecoder keys_;
  const GroupDecoder values_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_BACKEND_H_
