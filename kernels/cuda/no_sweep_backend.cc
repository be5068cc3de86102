#include "kernels/quantizers/attention_backend.h"
#include "kernels/quantizers/sweep_backend.h"

namespace ratequant::kv {

// Where the CUDA kernels aren't built.
absl::StatusOr<std::unique_ptr<SweepBackend>> MakeCudaSweepBackend(
    const DistortionSweep::Options&) {
  return absl::UnavailableError(
      "there is no CUDA device: this program was built without CUDA");
}

// The sweep's backend has said why already.
absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const DistortionSweep::Options&) {
  return absl::UnavailableError("this program was built without CUDA");
}

}  // namespace ratequant::kv
