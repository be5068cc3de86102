#ifndef RATEQUANT_KERNELS_CACHE_PAGED_BATCH_H_
#define RATEQUANT_KERNELS_CACHE_PAGED_BATCH_H_

#include <memory>
#include <utility>
#include <vector>

#include "kernels/cache/cache_backend.h"
#include "kernels/cache/sequence_state.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {

// A step and the sequences that take it.
class PagedBatch final : public KvBatch {
 public:
  // `cache` is compared only.
  PagedBatch(const void* cache, int max_entries, int max_tokens,
             std::unique_ptr<BackendBatch> backend)
      : cache(cache),
        max_entries(max_entries),
        max_tokens(max_tokens),
        backend(std::move(backend)) {}

  int64_t rows() const override {
    return steps.empty() ? 0 : steps.back().first_row + steps.back().count;
  }

  const void* const cache;
  const int max_entries;
  const int max_tokens;
  const std::unique_ptr<BackendBatch> backend;
  std::vector<SequenceStep> steps;
  std::vector<std::shared_ptr<SequenceState>> states;  // beside steps
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_PAGED_BATCH_H_
