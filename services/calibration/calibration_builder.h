#ifndef RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_BUILDER_H_
#define RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_BUILDER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ratequant/kv/distortion.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/calibration/plan.h"

namespace ratequant::calibration {

// What a calibration is made from.
struct Measurement {
  v1::ModelGeometry geometry;
  v1::CaptureInfo capture;
  kv::DistortionTables tables;
  std::vector<float> means;           // empty: none were taken off
  std::vector<std::string> warnings;  // raised so far
};

// Fits the curves, counts the packed bytes of every width, adds warnings (few
// tokens, groups without gradient, curves that fit badly) and names the result
// by the SHA-256 of its content. The same measurement gives the same bytes.
absl::StatusOr<v1::Calibration> BuildCalibration(const CalibrationPlan& plan,
                                                 const Measurement& measured);

// The digest that is a calibration's id: of its canonical bytes with `name` set
// to the model's and `create_time` unset.
absl::StatusOr<std::string> CalibrationDigest(v1::Calibration calibration,
                                              const std::string& model_id);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_BUILDER_H_
