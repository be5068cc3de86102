#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/simd_block_sweep.h"
#include "kernels/quantizers/block_sweep.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/worker_pool.h"
#include "kernels/reference/reference_block_sweep.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {
namespace {

constexpr int kTokenMultiple = 32;

// Tokens of one task: enough that every kivi group is whole. It is also a page
// size.
int BlockTokens(const std::vector<QuantizerSpec>& quantizers) {
  int tokens = kTokenMultiple;
  for (const QuantizerSpec& spec : quantizers) {
    if (spec.kind != QuantizerKind::kKivi) continue;
    tokens = std::max<int>(tokens, spec.group_size);
  }
  return tokens;
}

absl::Status CheckPositive(absl::string_view name, int value) {
  if (value >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      name, " ", value, " isn't supported; supported: 1 and above"));
}

absl::Status CheckWidths(const std::vector<int>& widths) {
  for (size_t i = 0; i < widths.size(); ++i) {
    if (!IsCodeWidth(widths[i])) {
      return absl::InvalidArgumentError(absl::StrCat(
          "width ", widths[i], " isn't supported; supported: 1 to 8 bits"));
    }
    if (i > 0 && widths[i] <= widths[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("width ", widths[i], " comes after ", widths[i - 1],
                       "; widths must be ascending, each once"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const DistortionSweep::Options& options) {
  absl::Status status = CheckPositive("layers", options.layers);
  if (status.ok()) status = CheckPositive("kv_heads", options.kv_heads);
  if (status.ok()) status = CheckWidths(options.widths);
  if (!status.ok()) return status;
  if (options.sink_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sink_tokens ", options.sink_tokens, " is negative"));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads ", options.threads, " is negative"));
  }
  if (options.backend != Backend::kReference &&
      options.backend != Backend::kSimd) {
    return absl::InvalidArgumentError(
        absl::StrCat("backend ", static_cast<int>(options.backend),
                     " isn't supported; supported: 0 (reference), 1 (SIMD)"));
  }
  if (options.quantizers.empty()) {
    return absl::InvalidArgumentError("no quantizer to sweep");
  }
  for (const QuantizerSpec& spec : options.quantizers) {
    status = ValidateQuantizer(spec, options.head_dim,
                               BlockTokens(options.quantizers));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::string_view TensorName(Tensor tensor) {
  return tensor == Tensor::kKey ? "K" : "V";
}

class Sweep final : public DistortionSweep {
 public:
  Sweep(Options options, std::unique_ptr<BlockSweep> block_sweep)
      : options_(std::move(options)),
        block_tokens_(BlockTokens(options_.quantizers)),
        block_sweep_(std::move(block_sweep)),
        pool_(options_.threads),
        groups_(static_cast<size_t>(options_.layers) * options_.kv_heads * 2,
                std::vector<double>(SweepSums::Size(options_), 0.0)),
        tensors_(static_cast<size_t>(options_.layers) * 2) {}

  absl::Status Add(int layer, Tensor tensor, int tokens, const void* values,
                   const void* gradients, DType dtype) override;
  absl::StatusOr<DistortionTables> Finish() const override;

 private:
  // What was added for one tensor of one layer.
  struct Progress {
    int64_t tokens = 0;
    bool has_nonzero = false;
  };

  absl::Status CheckCall(int layer, Tensor tensor, int tokens,
                         const void* values, const void* gradients,
                         DType dtype) const;
  std::vector<SweepBlock> SplitIntoBlocks(Tensor tensor, int tokens,
                                          const void* values,
                                          const void* gradients,
                                          DType dtype) const;
  absl::Status BadElementError(int layer, size_t block_index, int tokens,
                               const SweepBlock& block,
                               const BlockCheck& check) const;
  absl::Status CheckComplete() const;

  size_t TensorIndex(int layer, Tensor tensor) const {
    return static_cast<size_t>(layer) * 2 + (tensor == Tensor::kValue ? 1 : 0);
  }
  size_t GroupIndex(int layer, int head, Tensor tensor) const {
    return (static_cast<size_t>(layer) * options_.kv_heads + head) * 2 +
           (tensor == Tensor::kValue ? 1 : 0);
  }

  const Options options_;
  const int block_tokens_;
  const std::unique_ptr<BlockSweep> block_sweep_;
  WorkerPool pool_;
  std::vector<std::vector<double>> groups_;  // [num_groups] SweepSums
  std::vector<Progress> tensors_;            // [layers * 2]
};

absl::Status Sweep::CheckCall(int layer, Tensor tensor, int tokens,
                              const void* values, const void* gradients,
                              DType dtype) const {
  if (layer < 0 || layer >= options_.layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " isn't one of the ", options_.layers, " layers"));
  }
  if (tensor != Tensor::kKey && tensor != Tensor::kValue) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", static_cast<int>(tensor),
                     " isn't supported; supported: 0 (K), 1 (V)"));
  }
  if (ElementSize(dtype) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype ", static_cast<int>(dtype),
        " isn't supported; supported: 0 (fp32), 1 (fp16), 2 (bf16)"));
  }
  if (values == nullptr || gradients == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(values == nullptr ? "values" : "gradients", " is null"));
  }
  if (tokens <= options_.sink_tokens || tokens % block_tokens_ != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokens, " tokens aren't supported; supported: multiples of ",
        block_tokens_, " above the ", options_.sink_tokens, " sink tokens"));
  }
  return absl::OkStatus();
}

std::vector<SweepBlock> Sweep::SplitIntoBlocks(Tensor tensor, int tokens,
                                               const void* values,
                                               const void* gradients,
                                               DType dtype) const {
  const size_t block_bytes = static_cast<size_t>(block_tokens_) *
                             options_.head_dim * ElementSize(dtype);
  std::vector<SweepBlock> blocks;
  size_t offset = 0;
  for (int head = 0; head < options_.kv_heads; ++head) {
    for (int token = 0; token < tokens; token += block_tokens_) {
      blocks.push_back(
          {tensor, dtype, static_cast<const char*>(values) + offset,
           static_cast<const char*>(gradients) + offset, block_tokens_,
           std::clamp(options_.sink_tokens - token, 0, block_tokens_)});
      offset += block_bytes;
    }
  }
  return blocks;
}

absl::Status Sweep::BadElementError(int layer, size_t block_index, int tokens,
                                    const SweepBlock& block,
                                    const BlockCheck& check) const {
  const bool is_value = check.bad_value >= 0;
  const int64_t index = is_value ? check.bad_value : check.bad_gradient;
  const float value = LoadElement(is_value ? block.values : block.gradients,
                                  block.dtype, index);
  const size_t blocks_per_head = tokens / block_tokens_;
  const int64_t token =
      static_cast<int64_t>(block_index % blocks_per_head) * block_tokens_ +
      index / options_.head_dim;
  const std::string what = std::isnan(value) ? "NaN"
                           : std::isinf(value)
                               ? (value < 0 ? "-Inf" : "Inf")
                               : absl::StrCat(value, ", beyond fp16's 65504,");
  return absl::DataLossError(
      absl::StrCat(what, " in the ", is_value ? "values" : "gradient", " of ",
                   TensorName(block.tensor), ", layer ", layer, ", head ",
                   block_index / blocks_per_head, ", token ", token,
                   ", channel ", index % options_.head_dim));
}

absl::Status Sweep::Add(int layer, Tensor tensor, int tokens,
                        const void* values, const void* gradients,
                        DType dtype) {
  const absl::Status status =
      CheckCall(layer, tensor, tokens, values, gradients, dtype);
  if (!status.ok()) return status;
  const std::vector<SweepBlock> blocks =
      SplitIntoBlocks(tensor, tokens, values, gradients, dtype);
  const int num_blocks = static_cast<int>(blocks.size());

  std::vector<BlockCheck> checks(blocks.size());
  pool_.Run(num_blocks,
            [&](int i) { checks[i] = block_sweep_->Check(blocks[i]); });
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (checks[i].bad_value < 0 && checks[i].bad_gradient < 0) continue;
    return BadElementError(layer, i, tokens, blocks[i], checks[i]);
  }

  const size_t size = SweepSums::Size(options_);
  std::vector<double> sums(blocks.size() * size);
  pool_.Run(num_blocks, [&](int i) {
    if (blocks[i].skip_tokens == blocks[i].tokens) return;  // all sinks
    block_sweep_->Run(blocks[i], absl::MakeSpan(&sums[i * size], size));
  });

  // Always in the order of the blocks, whatever thread measured them.
  Progress& progress = tensors_[TensorIndex(layer, tensor)];
  progress.tokens += tokens - options_.sink_tokens;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const int head = static_cast<int>(i / (tokens / block_tokens_));
    std::vector<double>& group = groups_[GroupIndex(layer, head, tensor)];
    for (size_t k = 0; k < size; ++k) group[k] += sums[i * size + k];
    progress.has_nonzero |= checks[i].has_nonzero;
  }
  return absl::OkStatus();
}

absl::Status Sweep::CheckComplete() const {
  for (int layer = 0; layer < options_.layers; ++layer) {
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      const Progress& progress = tensors_[TensorIndex(layer, tensor)];
      const std::string name =
          absl::StrCat(TensorName(tensor), " of layer ", layer);
      if (progress.tokens == 0) {
        return absl::FailedPreconditionError(
            absl::StrCat("nothing was added for ", name));
      }
      if (progress.tokens != tensors_[0].tokens) {
        return absl::FailedPreconditionError(absl::StrCat(
            name, " got ", progress.tokens,
            " tokens besides sinks, K of layer 0 ", tensors_[0].tokens));
      }
      if (!progress.has_nonzero) {
        return absl::DataLossError(
            absl::StrCat("all values of ", name, " are zero"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DistortionTables> Sweep::Finish() const {
  const absl::Status status = CheckComplete();
  if (!status.ok()) return status;
  const double tokens = static_cast<double>(tensors_[0].tokens);
  const double elements = tokens * options_.head_dim;
  DistortionTables result;
  for (const std::vector<double>& group : groups_) {
    result.g2.push_back(group[0] / elements);
    result.x2.push_back(group[1] / elements);
  }
  for (size_t q = 0; q < options_.quantizers.size(); ++q) {
    DistortionTable table{options_.quantizers[q], options_.widths, {}, {}, {}};
    for (const std::vector<double>& group : groups_) {
      for (size_t w = 0; w < options_.widths.size(); ++w) {
        const double* pair = &group[SweepSums::PairOffset(options_, q, w)];
        table.mse.push_back(pair[0] / elements);
        table.c1.push_back(pair[1] / tokens);
        table.c2.push_back(pair[2] / tokens);
      }
    }
    result.tables.push_back(std::move(table));
  }
  return result;
}

std::unique_ptr<BlockSweep> MakeBlockSweep(
    const DistortionSweep::Options& options) {
  const SweepKernels* const kernels = GetSweepKernels();
  if (options.backend == Backend::kSimd && kernels != nullptr) {
    return std::make_unique<SimdBlockSweep>(options, *kernels);
  }
  return std::make_unique<ReferenceBlockSweep>(options,
                                               BlockTokens(options.quantizers));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DistortionSweep>> DistortionSweep::Create(
    const Options& options) {
  const absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  Options filled = options;
  if (filled.widths.empty()) {
    for (int w = kMinCodeWidth; w <= kMaxCodeWidth; ++w) {
      filled.widths.push_back(w);
    }
  }
  std::unique_ptr<BlockSweep> block_sweep = MakeBlockSweep(filled);
  return std::make_unique<Sweep>(std::move(filled), std::move(block_sweep));
}

}  // namespace ratequant::kv
