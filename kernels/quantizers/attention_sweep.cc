#include "kernels/quantizers/attention_sweep.h"

#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/sweep_backend.h"

namespace ratequant::kv {
namespace {

absl::Status CheckOptions(const DistortionSweep::Options& options) {
  if (options.query_heads < 1 || options.query_heads % options.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("query_heads ", options.query_heads,
                     " aren't supported; supported: multiples of the ",
                     options.kv_heads, " KV heads"));
  }
  if (options.attention_window < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "attention_window ", options.attention_window, " is negative"));
  }
  return absl::OkStatus();
}

absl::Status CheckParams(const AttentionParams& params, int query_heads) {
  if (params.query_heads != query_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention has ", params.query_heads,
                     " query heads, the sweep ", query_heads));
  }
  if (!std::isfinite(params.softmax_scale) || params.softmax_scale <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("softmax_scale ", params.softmax_scale,
                     " isn't supported; supported: finite, above 0"));
  }
  if (!std::isfinite(params.soft_cap) || params.soft_cap < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("soft_cap ", params.soft_cap,
                     " isn't supported; supported: finite, 0 (none) or above"));
  }
  if (params.sliding_window < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sliding_window ", params.sliding_window, " is negative"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeBackend(
    const DistortionSweep::Options& options) {
  if (options.device.kind == DeviceKind::kCuda) {
    return MakeCudaAttentionBackend(options);
  }
  return MakeCpuAttentionBackend(options);
}

}  // namespace

AttentionSweep::AttentionSweep(const DistortionSweep::Options& options,
                               std::unique_ptr<AttentionBackend> backend)
    : options_(options),
      pairs_(options.quantizers.size() * options.widths.size()),
      backend_(std::move(backend)),
      sums_(SweepGroupIndex(options, options.layers, 0, Tensor::kKey) * pairs_),
      tokens_(options.layers) {}

absl::StatusOr<std::unique_ptr<AttentionSweep>> AttentionSweep::Create(
    const DistortionSweep::Options& options) {
  const absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  auto backend = MakeBackend(options);
  if (!backend.ok()) return backend.status();
  return std::unique_ptr<AttentionSweep>(
      new AttentionSweep(options, *std::move(backend)));
}

absl::Status AttentionSweep::CheckCall(const AttentionCapture& capture) const {
  if (capture.layer < 0 || capture.layer >= options_.layers) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", capture.layer,
                                                   " isn't one of the ",
                                                   options_.layers, " layers"));
  }
  if (ElementSize(capture.dtype) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", static_cast<int>(capture.dtype),
                     " isn't supported; supported: 0 (fp32), 1 (fp16), 2 "
                     "(bf16)"));
  }
  if (capture.keys == nullptr || capture.values == nullptr ||
      capture.queries == nullptr || capture.output_gradients == nullptr) {
    return absl::InvalidArgumentError(
        "keys, values, queries or output_gradients are null");
  }
  const int block = SweepBlockTokens(options_.quantizers);
  const int exact = options_.sink_tokens + options_.attention_window;
  if (capture.tokens <= exact || capture.tokens % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        capture.tokens, " tokens aren't supported; supported: multiples of ",
        block, " above the ", exact, " of sinks and window"));
  }
  return CheckParams(capture.params, options_.query_heads);
}

absl::Status AttentionSweep::FindBad(const AttentionCapture& capture) const {
  const struct {
    const char* name;
    const void* data;
    int heads;
    bool cached;  // in fp16
  } tensors[] = {{"K", capture.keys, options_.kv_heads, true},
                 {"V", capture.values, options_.kv_heads, true},
                 {"Q", capture.queries, options_.query_heads, false},
                 {"the output's gradient", capture.output_gradients,
                  options_.query_heads, false}};
  const int64_t row = options_.head_dim;
  for (const auto& tensor : tensors) {
    const int64_t count = int64_t{tensor.heads} * capture.tokens * row;
    for (int64_t i = 0; i < count; ++i) {
      const float value = LoadElement(tensor.data, capture.dtype, i);
      if (tensor.cached ? !IsOutsideHalf(value) : std::isfinite(value))
        continue;
      return absl::DataLossError(absl::StrCat(
          value, std::isfinite(value) ? ", beyond fp16's 65504," : "", " in ",
          tensor.name, ", layer ", capture.layer, ", head ",
          i / row / capture.tokens, ", token ", i / row % capture.tokens,
          ", channel ", i % row));
    }
  }
  return absl::DataLossError(absl::StrCat(
      "the output's gradient of layer ", capture.layer,
      " is too large: the attention-output distortion isn't finite"));
}

absl::Status AttentionSweep::Add(const AttentionCapture& capture) {
  const absl::Status status = CheckCall(capture);
  if (!status.ok()) return status;
  const auto added = backend_->Measure(capture);
  if (absl::IsDataLoss(added.status())) return FindBad(capture);
  if (!added.ok()) return added.status();
  for (const double sum : *added) {
    if (!std::isfinite(sum)) return FindBad(capture);
  }
  const size_t first =
      SweepGroupIndex(options_, capture.layer, 0, Tensor::kKey) * pairs_;
  for (size_t i = 0; i < added->size(); ++i) sums_[first + i] += (*added)[i];
  tokens_[capture.layer] += capture.tokens - options_.sink_tokens;
  return absl::OkStatus();
}

absl::Status AttentionSweep::CheckComplete(int64_t tokens) const {
  for (int layer = 0; layer < options_.layers; ++layer) {
    if (tokens_[layer] == tokens) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("attention of layer ", layer, " got ", tokens_[layer],
                     " tokens besides sinks, K of layer 0 ", tokens));
  }
  return absl::OkStatus();
}

std::vector<double> AttentionSweep::Means(int quantizer, int64_t tokens) const {
  const size_t widths = options_.widths.size();
  std::vector<double> means;
  for (size_t group = 0; group * pairs_ < sums_.size(); ++group) {
    const double* const sums = &sums_[group * pairs_ + quantizer * widths];
    for (size_t w = 0; w < widths; ++w) {
      means.push_back(sums[w] / static_cast<double>(tokens));
    }
  }
  return means;
}

}  // namespace ratequant::kv
