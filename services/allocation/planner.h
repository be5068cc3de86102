#ifndef RATEQUANT_SERVICES_ALLOCATION_PLANNER_H_
#define RATEQUANT_SERVICES_ALLOCATION_PLANNER_H_

#include "absl/status/statusor.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/query.h"

namespace ratequant::allocation {

// Answers `query`, made from `calibration`: the complete bit map, named by its
// content. OUT_OF_RANGE (BUDGET_BELOW_MINIMUM) when no allowed map keeps the
// budget; the ErrorInfo's metadata then has `budget` (the field), `requested`
// and `minimum`, the nearest budget that can be kept. INVALID_ARGUMENT
// (INVALID_POLICY) when the policy leaves a group no width. Deterministic: the
// same arguments give the same bytes. Thread-safe.
absl::StatusOr<v1::BitMap> PlanBitMap(const v1::Calibration& calibration,
                                      const Query& query);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_PLANNER_H_
