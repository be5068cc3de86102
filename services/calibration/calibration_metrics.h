#ifndef RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_METRICS_H_
#define RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_METRICS_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/histogram.h"
#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::calibration {

// What calibrations count. Thread-safe.
class CalibrationMetrics {
 public:
  static CalibrationMetrics& Get();

  // A layer went through the sweep: bytes of its K, V and gradients.
  void Swept(double bytes, absl::Duration time);

  // A calibration ended: published, spooled, failed or cancelled.
  void Ended(const absl::StatusOr<v1::CalibrateProgress>& outcome,
             absl::Duration time);

 private:
  CalibrationMetrics();

  prometheus::Counter& swept_bytes_;
  prometheus::Counter& sweep_seconds_;
  prometheus::Counter& published_;
  prometheus::Counter& spooled_;
  prometheus::Counter& failed_;
  prometheus::Counter& cancelled_;
  prometheus::Histogram& durations_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_METRICS_H_
