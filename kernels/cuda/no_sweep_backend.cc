#include "kernels/quantizers/sweep_backend.h"

namespace ratequant::kv {

// Where the CUDA kernels aren't built.
absl::StatusOr<std::unique_ptr<SweepBackend>> MakeCudaSweepBackend(
    const DistortionSweep::Options&) {
  return absl::UnavailableError(
      "there is no CUDA device: this program was built without CUDA");
}

}  // namespace ratequant::kv
