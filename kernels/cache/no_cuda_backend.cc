#include "absl/status/status.h"
#include "kernels/cache/cuda_backend.h"

namespace ratequant::kv {

absl::StatusOr<std::unique_ptr<CacheBackend>> MakeCudaBackend(
    const KvCacheConfig&, const KvLayout&, const KvCacheOptions&, int) {
  return absl::FailedPreconditionError(
      "a CUDA device was asked for, and this library was built without CUDA; "
      "found: the CPU");
}

}  // namespace ratequant::kv
