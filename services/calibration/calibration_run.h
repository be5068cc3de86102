#ifndef RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_RUN_H_
#define RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_RUN_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/kv/device.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/calibration/cancel_token.h"
#include "services/calibration/capture_source.h"
#include "services/calibration/plan.h"
#include "services/calibration/progress.h"

namespace ratequant::calibration {

// What the sweep runs on.
struct SweepExecution {
  kv::Device device = {};
  int threads = 0;  // CPU; 0: one per core
};

// UNAVAILABLE DEVICE_UNAVAILABLE when there is no such device, saying what
// there is.
absl::Status CheckSweepDevice(const kv::Device& device);

// Measures everything `source` delivers and builds the calibration: opens the
// source, sweeps every layer, fits. Moves `progress` through CAPTURING and
// FITTING.
//
// Errors: the source's; `cancel`'s; UNSUPPORTED_QUANTIZER and UNSUPPORTED_SHAPE
// (INVALID_ARGUMENT) for the model's shape; DATA_LOSS: NON_FINITE_CAPTURE,
// naming sequence, layer, head and token, and ALL_ZERO_CAPTURE.
absl::StatusOr<v1::Calibration> RunCalibration(const CalibrationPlan& plan,
                                               const SweepExecution& execution,
                                               CaptureSource& source,
                                               Progress& progress,
                                               const CancelToken& cancel);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_RUN_H_
