#ifndef RATEQUANT_KERNELS_C_API_HANDLES_H_
#define RATEQUANT_KERNELS_C_API_HANDLES_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/c_api/boundary.h"
#include "kernels/c_api/handle_registry.h"
#include "ratequant/kv/c_api.h"
#include "ratequant/kv/execution.h"
#include "ratequant/kv/kv_cache.h"

// What the handles of the C ABI stand for.

namespace ratequant::kv {

// A batch and the cache that it needs.
struct OwnedBatch {
  std::shared_ptr<KvCache> cache;  // before the batch: outlives it
  std::unique_ptr<KvBatch> batch;
};

HandleRegistry<KvCache>& Caches();
HandleRegistry<OwnedBatch>& Batches();
HandleRegistry<LoopRunner>& Threads();

absl::Status UnknownCache(rq_kv_cache cache);

// An execution and the threads that it needs.
struct OwnedExecution {
  std::shared_ptr<LoopRunner> threads;
  Execution on;
};

// Null stands for zeros. NOT_FOUND for threads that don't exist.
absl::StatusOr<OwnedExecution> FromC(const rq_kv_execution* on);

// Runs `body(KvCache&) -> absl::Status` on the cache with that handle.
template <typename Body>
rq_kv_status WithCache(rq_kv_cache handle, const Body& body) noexcept {
  return AtBoundary([&]() -> absl::Status {
    const std::shared_ptr<KvCache> cache = Caches().Find(handle);
    if (cache == nullptr) return UnknownCache(handle);
    return body(*cache);
  });
}

// The same for `body(KvCache&) -> absl::StatusOr<int64_t>` with a result.
template <typename Body>
rq_kv_status ReadInto(int64_t* out, rq_kv_cache handle,
                      const Body& body) noexcept {
  return WithCache(handle, [&](KvCache& cache) -> absl::Status {
    if (out == nullptr) return NullArgument("out");
    const absl::StatusOr<int64_t> value = body(cache);
    if (value.ok()) *out = *value;
    return value.status();
  });
}

// The two for `body(KvCache&, const Execution&)`.
template <typename Body>
rq_kv_status WithCacheOn(rq_kv_cache handle, const rq_kv_execution* on,
                         const Body& body) noexcept {
  return WithCache(handle, [&](KvCache& cache) -> absl::Status {
    const absl::StatusOr<OwnedExecution> given = FromC(on);
    if (!given.ok()) return given.status();
    return body(cache, given->on);
  });
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_C_API_HANDLES_H_
