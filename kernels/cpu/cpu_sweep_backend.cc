#include <algorithm>
#include <utility>

#include "kernels/cpu/simd_block_sweep.h"
#include "kernels/quantizers/block_sweep.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/sweep_backend.h"
#include "kernels/quantizers/worker_pool.h"
#include "kernels/reference/reference_block_sweep.h"

namespace ratequant::kv {
namespace {

std::unique_ptr<BlockSweep> MakeBlockSweep(
    const DistortionSweep::Options& options) {
  const SweepKernels* const kernels = GetSweepKernels();
  if (options.backend == Backend::kSimd && kernels != nullptr) {
    return std::make_unique<SimdBlockSweep>(options, *kernels);
  }
  return std::make_unique<ReferenceBlockSweep>(options);
}

class CpuSweepBackend final : public SweepBackend {
 public:
  explicit CpuSweepBackend(const DistortionSweep::Options& options)
      : options_(options),
        block_tokens_(SweepBlockTokens(options.quantizers)),
        size_(SweepSumsOf(options).Size()),
        block_sweep_(MakeBlockSweep(options)),
        pool_(options.threads),
        sums_(SweepGroupIndex(options, options.layers, 0, Tensor::kKey) *
              size_),
        squares_(sums_.size()) {}

  absl::StatusOr<SweepAdded> Add(const SweepInput& input) override;
  absl::StatusOr<std::vector<double>> Sums() const override;

 private:
  std::vector<SweepBlock> SplitIntoBlocks(const SweepInput& input) const;
  BadSweepElement FirstBad(size_t block_index, int tokens,
                           const SweepBlock& block,
                           const BlockCheck& check) const;
  void AddToGroups(const SweepInput& input,
                   const std::vector<double>& block_sums);

  const DistortionSweep::Options options_;
  const int block_tokens_;
  const size_t size_;
  const std::unique_ptr<BlockSweep> block_sweep_;
  WorkerPool pool_;
  std::vector<double> sums_;     // [num_groups][size_]
  std::vector<double> squares_;  // the same, of what each Add added
};

std::vector<SweepBlock> CpuSweepBackend::SplitIntoBlocks(
    const SweepInput& input) const {
  const size_t block_bytes = static_cast<size_t>(block_tokens_) *
                             options_.head_dim * ElementSize(input.dtype);
  std::vector<SweepBlock> blocks;
  size_t offset = 0;
  for (int head = 0; head < options_.kv_heads; ++head) {
    for (int token = 0; token < input.tokens; token += block_tokens_) {
      blocks.push_back(
          {input.tensor, input.dtype,
           static_cast<const char*>(input.values) + offset,
           static_cast<const char*>(input.gradients) + offset, block_tokens_,
           std::clamp(options_.sink_tokens - token, 0, block_tokens_)});
      offset += block_bytes;
    }
  }
  return blocks;
}

BadSweepElement CpuSweepBackend::FirstBad(size_t block_index, int tokens,
                                          const SweepBlock& block,
                                          const BlockCheck& check) const {
  const bool is_gradient = check.bad_value < 0;
  const int64_t index = is_gradient ? check.bad_gradient : check.bad_value;
  const size_t blocks_per_head = tokens / block_tokens_;
  return {is_gradient, static_cast<int>(block_index / blocks_per_head),
          static_cast<int64_t>(block_index % blocks_per_head) * block_tokens_ +
              index / options_.head_dim,
          static_cast<int>(index % options_.head_dim),
          LoadElement(is_gradient ? block.gradients : block.values, block.dtype,
                      index)};
}

absl::StatusOr<SweepAdded> CpuSweepBackend::Add(const SweepInput& input) {
  const std::vector<SweepBlock> blocks = SplitIntoBlocks(input);
  const int num_blocks = static_cast<int>(blocks.size());

  std::vector<BlockCheck> checks(blocks.size());
  pool_.Run(num_blocks,
            [&](int i) { checks[i] = block_sweep_->Check(blocks[i]); });
  SweepAdded added;
  for (size_t i = 0; i < blocks.size(); ++i) {
    added.has_nonzero |= checks[i].has_nonzero;
    if (checks[i].bad_value < 0 && checks[i].bad_gradient < 0) continue;
    added.bad = FirstBad(i, input.tokens, blocks[i], checks[i]);
    return added;
  }

  std::vector<double> sums(blocks.size() * size_);
  pool_.Run(num_blocks, [&](int i) {
    if (blocks[i].skip_tokens == blocks[i].tokens) return;  // all sinks
    block_sweep_->Run(blocks[i], absl::MakeSpan(&sums[i * size_], size_));
  });

  AddToGroups(input, sums);
  return added;
}

// Always in the order of the blocks, whatever thread measured them.
void CpuSweepBackend::AddToGroups(const SweepInput& input,
                                  const std::vector<double>& block_sums) {
  const size_t blocks_per_head = input.tokens / block_tokens_;
  for (int head = 0; head < options_.kv_heads; ++head) {
    const size_t group =
        SweepGroupIndex(options_, input.layer, head, input.tensor) * size_;
    const double* const first = &block_sums[head * blocks_per_head * size_];
    for (size_t k = 0; k < size_; ++k) {
      double sum = 0;
      for (size_t i = 0; i < blocks_per_head; ++i) sum += first[i * size_ + k];
      sums_[group + k] += sum;
      squares_[group + k] += sum * sum;
    }
  }
}

absl::StatusOr<std::vector<double>> CpuSweepBackend::Sums() const {
  std::vector<double> all = sums_;
  all.insert(all.end(), squares_.begin(), squares_.end());
  return all;
}

}  // namespace

std::unique_ptr<SweepBackend> MakeCpuSweepBackend(
    const DistortionSweep::Options& options) {
  return std::make_unique<CpuSweepBackend>(options);
}

}  // namespace ratequant::kv
