#ifndef RATEQUANT_SERVICES_CALIBRATION_MEMORY_NEED_H_
#define RATEQUANT_SERVICES_CALIBRATION_MEMORY_NEED_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "ratequant/v1/model.pb.h"
#include "services/calibration/plan.h"

namespace ratequant::calibration {

// What a calibration keeps in the worker's memory besides captured layers, in
// bytes: the sweep's sums, the tables made from them, means and a layer less
// them where they are asked for, and the finished
// calibration with the copies that naming and publishing it take. Grows with
// layers * kv_heads * quantizers (and, little, with kv_heads *
// sequence_length), not with tokens. ENGINE.md, "Memory", has the formula.
uint64_t TableBytes(const CalibrationPlan& plan,
                    const v1::ModelGeometry& geometry);

// How many captured layers of `layer_bytes` (not 0) the calibration may keep at
// once: what fits into plan.memory_bytes beside its tables. FAILED_PRECONDITION
// MEMORY_LIMIT_EXCEEDED, with the bytes that are needed, when not even one
// does.
absl::StatusOr<uint64_t> LayersInMemory(const CalibrationPlan& plan,
                                        const v1::ModelGeometry& geometry,
                                        uint64_t layer_bytes);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_MEMORY_NEED_H_
