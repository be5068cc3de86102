#ifndef RATEQUANT_SERVICES_ALLOCATION_CURVE_H_
#define RATEQUANT_SERVICES_ALLOCATION_CURVE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/query.h"

namespace ratequant::allocation {

// Predicted loss against cost over the whole range, as
// ratequant.v1.RateDistortionCurve defines it. `query` was made from `request`;
// of the request only cost, max_points and capacity are looked at. OUT_OF_RANGE
// (NOTHING_FITS) says what would fit; INVALID_ARGUMENT (INVALID_POLICY) names a
// group that the policy leaves no width. Thread-safe.
absl::StatusOr<v1::RateDistortionCurve> PlanCurve(
    const v1::Calibration& calibration, const Query& query,
    const v1::GetRateDistortionCurveRequest& request);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_CURVE_H_
