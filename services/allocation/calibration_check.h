#ifndef RATEQUANT_SERVICES_ALLOCATION_CALIBRATION_CHECK_H_
#define RATEQUANT_SERVICES_ALLOCATION_CALIBRATION_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::allocation {

// Widths every distortion table has, in this order: 1 to kWidths bits.
inline constexpr int kWidths = 8;

// Groups of a geometry: layers * kv_heads * 2.
int64_t GroupCount(const v1::ModelGeometry& geometry);

// INVALID_ARGUMENT (INVALID_CALIBRATION) that lists what is wrong, field by
// field: a shape out of range; arrays of another size than the shape asks for;
// widths other than 1 to 8; numbers that are negative or not finite; quantizers
// that aren't canonical, don't fit head_dim or appear twice; tables that count
// bytes in different formats; sinks that leave no token. `name` and
// `create_time` aren't looked at. Thread-safe.
absl::Status CheckCalibration(const v1::Calibration& calibration);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_CALIBRATION_CHECK_H_
