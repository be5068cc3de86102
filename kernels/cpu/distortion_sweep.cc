#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quantizers/attention_sweep.h"
#include "kernels/quantizers/limits.h"
#include "kernels/quantizers/section.h"
#include "kernels/quantizers/sweep/traits.h"
#include "kernels/quantizers/sweep_backend.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {
namespace {

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

// A kind of the codec is checked as the codec does; of any other, the sweep
// knows what its registry says.
absl::Status CheckQuantizer(const QuantizerSpec& spec, int head_dim,
                            int block_tokens) {
  if (IsKnownKind(spec.kind)) {
    return ValidateQuantizer(spec, head_dim, block_tokens);
  }
  const std::optional<SweepTraits> traits = SweepTraitsOf(spec);
  if (!traits.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantizer kind ", static_cast<int>(spec.kind),
                     " isn't one that the sweep measures"));
  }
  if (traits->rotates && !IsPowerOfTwo(head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", head_dim,
                     " isn't supported; supported: powers of two from 8 to "
                     "512 where heads are rotated"));
  }
  return ValidateShape(head_dim, block_tokens);
}

absl::Status CheckDeviceOptions(const DistortionSweep::Options& options) {
  const Device& device = options.device;
  if (device.kind == DeviceKind::kCpu) return absl::OkStatus();
  if (device.kind != DeviceKind::kCuda) {
    return absl::InvalidArgumentError(
        absl::StrCat("device kind ", static_cast<int>(device.kind),
                     " isn't supported; supported: 0 (CPU), 1 (CUDA)"));
  }
  if (device.ordinal >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("CUDA device ", device.ordinal, " is negative"));
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
    status = CheckQuantizer(spec, options.head_dim,
                            SweepBlockTokens(options.quantizers));
    if (!status.ok()) return status;
  }
  return CheckDeviceOptions(options);
}

absl::string_view TensorName(Tensor tensor) {
  return tensor == Tensor::kKey ? "K" : "V";
}

class Sweep final : public DistortionSweep {
 public:
  // `attention` is null unless d2 is measured.
  Sweep(Options options, std::unique_ptr<SweepBackend> backend,
        std::unique_ptr<AttentionSweep> attention)
      : options_(std::move(options)),
        block_tokens_(SweepBlockTokens(options_.quantizers)),
        backend_(std::move(backend)),
        attention_(std::move(attention)),
        tensors_(static_cast<size_t>(options_.layers) * 2) {}

  absl::Status Add(int layer, Tensor tensor, int tokens, const void* values,
                   const void* gradients, DType dtype) override;
  absl::Status AddAttention(const AttentionCapture& capture) override;
  absl::StatusOr<DistortionTables> Finish() const override;

 private:
  // What was added for one tensor of one layer.
  struct Progress {
    int64_t tokens = 0;
    int sequences = 0;
    int sequence_tokens = 0;  // of each; 0 when they differ
    bool has_nonzero = false;
  };

  absl::Status CheckCall(const SweepInput& input) const;
  absl::Status CheckComplete() const;
  double SampleCount() const;

  size_t TensorIndex(int layer, Tensor tensor) const {
    return static_cast<size_t>(layer) * 2 + (tensor == Tensor::kValue ? 1 : 0);
  }

  const Options options_;
  const int block_tokens_;
  const std::unique_ptr<SweepBackend> backend_;
  const std::unique_ptr<AttentionSweep> attention_;
  std::vector<Progress> tensors_;  // [layers * 2]
};

absl::Status Sweep::CheckCall(const SweepInput& input) const {
  const auto& [layer, tensor, tokens, values, gradients, dtype] = input;
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

absl::Status BadElementError(int layer, Tensor tensor,
                             const BadSweepElement& bad) {
  const float value = bad.value;
  const std::string what = std::isnan(value) ? "NaN"
                           : std::isinf(value)
                               ? (value < 0 ? "-Inf" : "Inf")
                               : absl::StrCat(value, ", beyond fp16's 65504,");
  return absl::DataLossError(
      absl::StrCat(what, " in the ", bad.is_gradient ? "gradient" : "values",
                   " of ", TensorName(tensor), ", layer ", layer, ", head ",
                   bad.head, ", token ", bad.token, ", channel ", bad.channel));
}

absl::Status Sweep::Add(int layer, Tensor tensor, int tokens,
                        const void* values, const void* gradients,
                        DType dtype) {
  const SweepInput input = {layer, tensor, tokens, values, gradients, dtype};
  const absl::Status status = CheckCall(input);
  if (!status.ok()) return status;
  const absl::StatusOr<SweepAdded> added = backend_->Add(input);
  if (!added.ok()) return added.status();
  if (added->bad.has_value()) {
    return BadElementError(layer, tensor, *added->bad);
  }
  Progress& progress = tensors_[TensorIndex(layer, tensor)];
  if (progress.sequences++ == 0) progress.sequence_tokens = tokens;
  if (progress.sequence_tokens != tokens) progress.sequence_tokens = 0;
  progress.tokens += tokens - options_.sink_tokens;
  progress.has_nonzero |= added->has_nonzero;
  return absl::OkStatus();
}

absl::Status Sweep::AddAttention(const AttentionCapture& capture) {
  if (attention_ != nullptr) return attention_->Add(capture);
  return absl::FailedPreconditionError(
      "the sweep doesn't measure d2: its query_heads are 0");
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
  if (attention_ == nullptr) return absl::OkStatus();
  return attention_->CheckComplete(tensors_[0].tokens);
}

// Sequences that are samples of equal weight in every group; 0: they aren't.
double Sweep::SampleCount() const {
  for (const Progress& progress : tensors_) {
    if (progress.sequence_tokens == 0) return 0;
  }
  return tensors_[0].sequences;
}

absl::StatusOr<DistortionTables> Sweep::Finish() const {
  const absl::Status status = CheckComplete();
  if (!status.ok()) return status;
  const absl::StatusOr<std::vector<double>> sums = backend_->Sums();
  if (!sums.ok()) return sums.status();
  const SweepSums layout = SweepSumsOf(options_);
  const double tokens = static_cast<double>(tensors_[0].tokens);
  const double elements = tokens * options_.head_dim;
  const double sequences = SampleCount();
  const size_t all = sums->size() / 2;  // squares lie behind
  DistortionTables result;
  for (size_t at = 0; at < all; at += layout.Size()) {
    result.g2.push_back((*sums)[at] / elements);
    result.x2.push_back((*sums)[at + 1] / elements);
  }
  for (int q = 0; q < layout.num_quantizers; ++q) {
    DistortionTable table;
    table.quantizer = options_.quantizers[q];
    table.widths = options_.widths;
    for (size_t at = 0; at < all; at += layout.Size()) {
      for (int w = 0; w < layout.num_widths; ++w) {
        const double* pair = &(*sums)[at + layout.PairOffset(q, w)];
        table.mse.push_back(pair[0] / elements);
        table.c1.push_back(pair[1] / tokens);
        table.c2.push_back(pair[2] / tokens);
        if (sequences < 2) continue;
        const double spread = pair[all + 2] - pair[2] * pair[2] / sequences;
        table.c2_standard_error.push_back(
            std::sqrt(std::max(0.0, spread) * sequences / (sequences - 1)) /
            tokens);
      }
    }
    if (attention_ != nullptr) {
      table.d2 = attention_->Means(q, tensors_[0].tokens);
    }
    result.tables.push_back(std::move(table));
  }
  return result;
}

absl::StatusOr<std::unique_ptr<SweepBackend>> MakeBackend(
    const DistortionSweep::Options& options) {
  if (options.device.kind == DeviceKind::kCuda) {
    return MakeCudaSweepBackend(options);
  }
  return MakeCpuSweepBackend(options);
}

}  // namespace

int SweepBlockTokens(const std::vector<QuantizerSpec>& quantizers) {
  int tokens = 32;  // also a page size
  for (const QuantizerSpec& spec : quantizers) {
    const std::optional<SweepTraits> traits = SweepTraitsOf(spec);
    if (traits.has_value()) tokens = std::max(tokens, traits->token_multiple);
  }
  return tokens;
}

SweepSums SweepSumsOf(const DistortionSweep::Options& options) {
  return {static_cast<int>(options.quantizers.size()),
          static_cast<int>(options.widths.size())};
}

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
  absl::StatusOr<std::unique_ptr<SweepBackend>> backend = MakeBackend(filled);
  if (!backend.ok()) return backend.status();
  std::unique_ptr<AttentionSweep> attention;
  if (filled.query_heads != 0) {
    auto made = AttentionSweep::Create(filled);
    if (!made.ok()) return made.status();
    attention = *std::move(made);
  }
  return std::make_unique<Sweep>(std::move(filled), *std::move(backend),
                                 std::move(attention));
}

}  // namespace ratequant::kv
