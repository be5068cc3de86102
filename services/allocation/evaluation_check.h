#ifndef RATEQUANT_SERVICES_ALLOCATION_EVALUATION_CHECK_H_
#define RATEQUANT_SERVICES_ALLOCATION_EVALUATION_CHECK_H_

#include "absl/status/status.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/evaluation.pb.h"

namespace ratequant::allocation {

// Whether an evaluation can be true of `map`, compared with `uniform`:
// INVALID_ARGUMENT (INVALID_EVALUATION) with a violation for every field that
// can't. Names aren't looked at, except that of the uniform map when it isn't
// one, or of another calibration, budget or cache. Thread-safe.
absl::Status CheckEvaluation(const v1::Evaluation& evaluation,
                             const v1::BitMap& map, const v1::BitMap& uniform);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_EVALUATION_CHECK_H_
