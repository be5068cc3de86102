#include "services/calibration/calibration_metrics.h"

#include "services/common/metrics.h"

namespace ratequant::calibration {
namespace {

prometheus::Counter& Ends(const char* outcome) {
  return Metrics::Get().Counter("ratequant_calibrations_total",
                                "Calibrations that ended",
                                {{"outcome", outcome}});
}

}  // namespace

CalibrationMetrics& CalibrationMetrics::Get() {
  static auto& metrics = *new CalibrationMetrics();
  return metrics;
}

CalibrationMetrics::CalibrationMetrics()
    : swept_bytes_(Metrics::Get().Counter(
          "ratequant_sweep_bytes_total",
          "Bytes of K, V and gradients that the sweep measured")),
      sweep_seconds_(Metrics::Get().Counter("ratequant_sweep_seconds_total",
                                            "Time in the sweep")),
      published_(Ends("published")),
      spooled_(Ends("spooled")),
      failed_(Ends("failed")),
      cancelled_(Ends("cancelled")),
      durations_(Metrics::Get().Durations(
          "ratequant_calibration_duration_seconds",
          "Time of a calibration once its turn came")) {}

void CalibrationMetrics::Swept(double bytes, absl::Duration time) {
  swept_bytes_.Increment(bytes);
  sweep_seconds_.Increment(absl::ToDoubleSeconds(time));
}

void CalibrationMetrics::Ended(
    const absl::StatusOr<v1::CalibrateProgress>& outcome, absl::Duration time) {
  durations_.Observe(absl::ToDoubleSeconds(time));
  if (outcome.ok()) {
    (outcome->published() ? published_ : spooled_).Increment();
  } else {
    (absl::IsCancelled(outcome.status()) ? cancelled_ : failed_).Increment();
  }
}

}  // namespace ratequant::calibration
