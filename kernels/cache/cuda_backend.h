#ifndef RATEQUANT_KERNELS_CACHE_CUDA_BACKEND_H_
#define RATEQUANT_KERNELS_CACHE_CUDA_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cache/cache_backend.h"

namespace ratequant::kv {

// A cache in the memory of one GPU. `options` without zeros.
// FAILED_PRECONDITION when there is no such device, or this library was built
// without CUDA, saying what was found; RESOURCE_EXHAUSTED when its memory
// doesn't hold the cache.
absl::StatusOr<std::unique_ptr<CacheBackend>> MakeCudaBackend(
    const KvCacheConfig& config, const KvLayout& layout,
    const KvCacheOptions& options, int max_blocks);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_CUDA_BACKEND_H_
