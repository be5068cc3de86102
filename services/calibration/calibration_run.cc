#include "services/calibration/calibration_run.h"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/distortion.h"
#include "services/calibration/calibration_builder.h"
#include "services/calibration/calibration_metrics.h"
#include "services/calibration/mean_removal.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

absl::StatusOr<std::unique_ptr<kv::DistortionSweep>> MakeSweep(
    const CalibrationPlan& plan, const v1::ModelGeometry& geometry,
    std::vector<kv::QuantizerSpec> quantizers,
    const SweepExecution& execution) {
  kv::DistortionSweep::Options options;
  options.layers = static_cast<int>(geometry.layers());
  options.kv_heads = static_cast<int>(geometry.kv_heads());
  options.head_dim = static_cast<int>(geometry.head_dim());
  options.sink_tokens = static_cast<int>(plan.sink_tokens);
  options.quantizers = std::move(quantizers);
  options.device = execution.device;
  options.threads = execution.threads;
  if (plan.attention_output) {
    options.query_heads = static_cast<int>(geometry.query_heads());
    options.attention_window = static_cast<int>(kAttentionWindow);
  }
  auto sweep = kv::DistortionSweep::Create(options);
  if (sweep.ok()) return sweep;
  // Everything a request can get wrong was checked before; a limit of the
  // kernels that wasn't is one of the shape.
  return MakeError(sweep.status().code(),
                   absl::IsInvalidArgument(sweep.status()) ? "UNSUPPORTED_SHAPE"
                                                           : "SWEEP_FAILED",
                   sweep.status().message());
}

absl::Status DataLoss(const char* reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kDataLoss, reason, message);
}

// The sweep's error with what only the caller knows.
absl::Status AddError(const absl::Status& status, uint32_t sequence) {
  const std::string message =
      absl::StrCat("sequence ", sequence, ": ", status.message());
  if (absl::IsDataLoss(status)) return DataLoss("NON_FINITE_CAPTURE", message);
  return MakeError(absl::StatusCode::kInternal, "SWEEP_FAILED", message);
}

absl::Status FinishError(const absl::Status& status) {
  if (absl::IsDataLoss(status)) {
    return DataLoss("ALL_ZERO_CAPTURE", status.message());
  }
  return MakeError(absl::StatusCode::kInternal, "SWEEP_FAILED",
                   status.message());
}

// `means` is null when none are taken off.
absl::Status SweepLayer(const CalibrationPlan& plan, const CapturedLayer& layer,
                        kv::DType dtype, MeanRemoval* means,
                        kv::DistortionSweep& sweep) {
  const int index = static_cast<int>(layer.layer);
  const int tokens = static_cast<int>(plan.sequence_length);
  const auto add = [&](kv::Tensor tensor, const void* values,
                       const void* gradients) {
    if (means == nullptr) {
      return sweep.Add(index, tensor, tokens, values, gradients, dtype);
    }
    const MeanRemoval::Centred centred =
        means->Apply(layer.layer, tensor, values, gradients);
    return sweep.Add(index, tensor, tokens, centred.values, centred.gradients,
                     kv::DType::kFloat32);
  };
  absl::Status added = add(kv::Tensor::kKey, layer.key, layer.key_gradient);
  if (added.ok()) {
    added = add(kv::Tensor::kValue, layer.value, layer.value_gradient);
  }
  if (added.ok() && plan.attention_output) {
    added =
        sweep.AddAttention({index, tokens, layer.key, layer.value, layer.query,
                            layer.output_gradient, dtype, layer.attention});
  }
  return added.ok() ? added : AddError(added, layer.sequence);
}

absl::Status SweepAll(const CalibrationPlan& plan, const CaptureShape& shape,
                      CaptureSource& source, MeanRemoval* means,
                      kv::DistortionSweep& sweep, Progress& progress,
                      const CancelToken& cancel) {
  uint64_t layers_done = 0;
  const double layer_bytes =
      4.0 * static_cast<double>(
                TensorBytes(shape.geometry, plan.sequence_length, shape.dtype));
  for (;;) {
    auto layer = source.Next();
    if (!layer.ok()) return layer.status();
    if (!layer->has_value()) return absl::OkStatus();
    absl::Status cancelled = cancel.status();
    if (!cancelled.ok()) return cancelled;
    const absl::Time begin = absl::Now();
    absl::Status swept = SweepLayer(plan, **layer, shape.dtype, means, sweep);
    const absl::Duration time = absl::Now() - begin;
    progress.AddSweepTime(time);
    CalibrationMetrics::Get().Swept(layer_bytes, time);
    if (!swept.ok()) return swept;
    ++layers_done;
    progress.SetDone(layers_done * plan.sequence_length /
                     shape.geometry.layers());
  }
}

// True when the loss reached any group of `tensor` (0: K, 1: V).
bool HasGradient(const std::vector<double>& g2, size_t tensor) {
  for (size_t g = tensor; g < g2.size(); g += 2) {
    if (g2[g] != 0) return true;
  }
  return false;
}

// Nothing that differs between two runs on one device.
void DescribeSweep(const SweepExecution& execution, v1::CaptureInfo* info) {
  const bool cuda = execution.device.kind == kv::DeviceKind::kCuda;
  info->set_sweep_device(cuda ? "cuda" : "cpu");
  info->clear_sweep_software();
  info->add_sweep_software(absl::StrCat("ratequant ", RATEQUANT_VERSION));
  info->add_sweep_software(absl::StrCat("packed format ", kv::kFormatVersion));
}

absl::StatusOr<kv::DistortionTables> FinishSweep(
    const kv::DistortionSweep& sweep) {
  auto tables = sweep.Finish();
  if (!tables.ok()) return FinishError(tables.status());
  for (size_t tensor : {0, 1}) {
    if (HasGradient(tables->g2, tensor)) continue;
    return DataLoss("ALL_ZERO_CAPTURE",
                    absl::StrCat("every gradient of ", tensor == 0 ? "K" : "V",
                                 " is zero in all layers: the loss didn't "
                                 "reach the KV cache"));
  }
  return tables;
}

}  // namespace

absl::Status CheckSweepDevice(const kv::Device& device) {
  kv::DistortionSweep::Options options;
  options.layers = options.kv_heads = 1;
  options.head_dim = 64;
  options.quantizers = kv::DefaultQuantizers();
  options.device = device;
  const absl::Status status = kv::DistortionSweep::Create(options).status();
  if (status.ok()) return status;
  return MakeError(status.code(), "DEVICE_UNAVAILABLE", status.message());
}

absl::StatusOr<v1::Calibration> RunCalibration(const CalibrationPlan& plan,
                                               const SweepExecution& execution,
                                               CaptureSource& source,
                                               Progress& progress,
                                               const CancelToken& cancel) {
  auto shape = source.Open();
  if (!shape.ok()) return shape.status();
  auto choice = ChooseQuantizers(plan, shape->geometry);
  if (!choice.ok()) return choice.status();
  auto sweep = MakeSweep(plan, shape->geometry, choice->quantizers, execution);
  if (!sweep.ok()) return sweep.status();

  progress.SetTotal(plan.tokens());
  progress.SetPhase(v1::CalibrateProgress::CAPTURING);
  absl::optional<MeanRemoval> means;
  if (plan.subtract_means) {
    means.emplace(shape->geometry, plan.sequence_length, plan.sink_tokens,
                  shape->dtype);
  }
  absl::Status swept =
      SweepAll(plan, *shape, source, means.has_value() ? &*means : nullptr,
               **sweep, progress, cancel);
  if (!swept.ok()) return swept;

  progress.SetPhase(v1::CalibrateProgress::FITTING);
  auto tables = FinishSweep(**sweep);
  if (!tables.ok()) return tables.status();
  v1::CaptureInfo info = source.Info();
  DescribeSweep(execution, &info);
  return BuildCalibration(
      plan, {shape->geometry, std::move(info), *std::move(tables),
             means.has_value() ? means->means() : std::vector<float>(),
             choice->warnings});
}

}  // namespace ratequant::calibration
