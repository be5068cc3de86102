#include "ratequant/kv/kv_cache.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cache/cpu_backend.h"
#include "kernels/cache/cuda_backend.h"
#include "kernels/cache/layer_places.h"
#include "kernels/cache/paged_cache.h"

namespace ratequant::kv {
namespace {

constexpr int64_t kMaxPages = std::numeric_limits<int32_t>::max();
constexpr int kMaxSequences = 1 << 20;

absl::Status CheckOptions(const KvCacheOptions& options) {
  const auto invalid = [](absl::string_view name, int64_t value, int64_t low,
                          int64_t high) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " ", value, " is not supported; supported are ", low,
                     " to ", high));
  };
  if (options.num_pages < 0 || options.num_pages > kMaxPages) {
    return invalid("num_pages", options.num_pages, 0, kMaxPages);
  }
  if (options.max_sequences < 1 || options.max_sequences > kMaxSequences) {
    return invalid("max_sequences", options.max_sequences, 1, kMaxSequences);
  }
  if (options.max_tokens < 0 || options.max_tokens > kMaxTokens) {
    return invalid("max_tokens", options.max_tokens, 0, kMaxTokens);
  }
  if (options.device.kind != DeviceKind::kCpu &&
      options.device.kind != DeviceKind::kCuda) {
    return invalid("device kind", static_cast<int>(options.device.kind), 0, 1);
  }
  if (options.device.kind == DeviceKind::kCuda && options.num_pages == 0) {
    return absl::InvalidArgumentError(
        "num_pages 0 is supported on the CPU alone; say how many pages of GPU "
        "memory the cache takes");
  }
  return absl::OkStatus();
}

int64_t MemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

KvCacheOptions WithoutZeros(KvCacheOptions options, const KvCacheConfig& config,
                            const KvLayout& layout) {
  if (options.num_pages == 0) {
    options.num_pages = std::clamp<int64_t>(
        MemoryBytes() / static_cast<int64_t>(layout.page_bytes()), 1,
        kMaxPages);
  }
  if (options.max_tokens == 0) {
    const KvGeometry& g = config.geometry;
    const int64_t exact_tokens =
        MemoryBytes() / (int64_t{4} * g.layers * g.kv_heads * g.head_dim);
    options.max_tokens =
        std::min(kMaxTokens,
                 options.num_pages * config.page_tokens + config.sink_tokens +
                     std::min<int64_t>(config.window, exact_tokens));
  }
  return options;
}

absl::StatusOr<std::unique_ptr<CacheBackend>> MakeBackend(
    const KvCacheConfig& config, const KvLayout& layout,
    const KvCacheOptions& options, int max_blocks) {
  if (options.device.kind == DeviceKind::kCuda) {
    return MakeCudaBackend(config, layout, options, max_blocks);
  }
  return CpuBackend::Create(config, layout, options, max_blocks);
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(
    const KvCacheConfig& config, const KvCacheOptions& options) {
  absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  if (!layout.ok()) return layout.status();
  absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  const KvCacheOptions whole = WithoutZeros(options, config, *layout);
  const int max_blocks = static_cast<int>(std::min(
      whole.num_pages,
      (whole.max_tokens + config.page_tokens - 1) / config.page_tokens));
  absl::StatusOr<std::unique_ptr<CacheBackend>> backend =
      MakeBackend(config, *layout, whole, max_blocks);
  if (!backend.ok()) return backend.status();
  return std::make_unique<PagedCache>(config, whole, *std::move(layout),
                                      max_blocks, *std::move(backend));
}

}  // namespace ratequant::kv
