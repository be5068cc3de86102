#ifndef RATEQUANT_KERNELS_CACHE_CPU_BACKEND_H_
#define RATEQUANT_KERNELS_CACHE_CPU_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/cache/address_space.h"
#include "kernels/cache/cache_backend.h"
#include "kernels/cache/layer_places.h"
#include "kernels/paging/layer_memory.h"
#include "kernels/quantizers/row_plan.h"
#include "ratequant/kv/codec.h"

namespace ratequant::kv {

// A cache in the host's memory, worked on by the caller's threads.
class CpuBackend final : public CacheBackend {
 public:
  // `options` without zeros. Errors of Codec::Create and AddressSpace::Reserve.
  static absl::StatusOr<std::unique_ptr<CpuBackend>> Create(
      const KvCacheConfig& config, const KvLayout& layout,
      const KvCacheOptions& options, int max_blocks);

  absl::StatusOr<std::unique_ptr<BackendBatch>> MakeBatch(
      int max_entries, int max_tokens) const override;
  absl::Status SetSteps(absl::Span<const SequenceStep> steps,
                        BackendBatch& batch, const Execution& on) override;
  absl::Status SetBlocks(int slot, int first, absl::Span<const int32_t> pages,
                         const Execution& on) override;
  absl::Status EditPages(absl::Span<const PageEdit> edits,
                         const Execution& on) override;
  absl::Status ClearSidecars(int slot, const Execution& on) override;
  absl::Status CopySidecars(const SequenceStep& state, int to,
                            const Execution& on) override;
  int tensor_alignment() const override { return 1; }
  int max_single_tokens() const override { return kMaxTokens; }
  BadCacheValue FindBadInput(int layer, absl::Span<const SequenceStep> steps,
                             const ConstHeads& keys, const ConstHeads& values,
                             const Execution& on) const override;
  absl::Status Append(int layer, const BackendBatch& batch,
                      const ConstHeads& keys, const ConstHeads& values,
                      const Execution& on) override;
  absl::Status Attend(int layer, const BackendBatch& batch,
                      const AttentionParams& params, const ConstHeads& queries,
                      const MutableHeads& out, const Execution& on) override;
  absl::Status Gather(int layer, const SequenceStep& state, int first,
                      int count, const MutableHeads& keys,
                      const MutableHeads& values,
                      const Execution& on) const override;
  absl::StatusOr<BadCacheValue> TakeFault(const Execution&) override {
    return BadCacheValue();
  }
  absl::Status CopyPageOut(int layer, int32_t page, uint8_t* out,
                           const Execution& on) const override;
  absl::Status CopyPageIn(int layer, int32_t page, const uint8_t* in,
                          const Execution& on) override;
  absl::Status CopySidecarOut(int layer, int slot, int64_t offset,
                              int64_t count, uint8_t* out,
                              const Execution& on) const override;
  absl::Status CopySidecarIn(int layer, int slot, int64_t offset, int64_t count,
                             const uint8_t* in, const Execution& on) override;
  const uint8_t* HostPage(int layer, int32_t page) const override {
    return Page(layer, page);
  }
  int64_t ReservedBytes() const override;
  bool gives_memory_back() const override { return true; }
  void ReleasePages(absl::Span<const int32_t> pages) override;

 private:
  struct Layer {
    LayerPlaces places;
    std::vector<std::shared_ptr<const Codec>> codecs;  // [kv_heads * 2]
    std::vector<RowPlan> plans;                        // those of the codecs
    AddressSpace pages;
    AddressSpace sidecars;
    LayerMemory memory;
  };

  CpuBackend(const KvCacheConfig& config, Backend backend)
      : config_(config), backend_(backend) {}
  uint8_t* Page(int layer, int32_t page) const {
    const LayerMemory& memory = layers_[layer].memory;
    return memory.pages + page * memory.page_bytes;
  }
  uint8_t* Sidecar(int layer, int slot) const {
    const LayerMemory& memory = layers_[layer].memory;
    return memory.sidecars + slot * memory.sidecar_bytes;
  }

  const KvCacheConfig config_;
  const Backend backend_;
  std::vector<Layer> layers_;
  AddressSpace block_table_;
  int32_t max_blocks_ = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_CPU_BACKEND_H_
