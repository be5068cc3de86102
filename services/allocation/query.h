#ifndef RATEQUANT_SERVICES_ALLOCATION_QUERY_H_
#define RATEQUANT_SERVICES_ALLOCATION_QUERY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration.pb.h"

namespace ratequant::allocation {

// A budget query made explicit against one calibration: two requests that mean
// the same give the same Query.
struct Query {
  // Indices into the calibration's tables, in the order of their quantizers.
  std::vector<int> tables;

  // Unset in a query for a whole curve.
  v1::Budget budget;

  // Objective and strategy filled in. Widths of 0 mean the defaults, which
  // differ between quantizers.
  v1::Policy policy;

  // Everything filled in.
  v1::CacheConfig cache;
};

// Checks a request and makes it explicit. Errors as GetBitMap documents them,
// except those about names, which the caller has resolved. `calibration` has
// been checked.
absl::StatusOr<Query> MakeQuery(const v1::GetBitMapRequest& request,
                                const v1::Calibration& calibration);
absl::StatusOr<Query> MakeQuery(
    const v1::GetRateDistortionCurveRequest& request,
    const v1::Calibration& calibration);

// A policy with objective and strategy filled in and repeated fields in order.
// Errors as GetBitMap documents them; layers and heads are taken to exist.
absl::StatusOr<v1::Policy> CanonicalPolicy(const v1::Policy& policy);

// Identifies the answer to `query` against `calibration`: the hexadecimal
// SHA-256 of both and of the solver's version.
absl::StatusOr<std::string> QueryKey(const Query& query,
                                     const v1::Calibration& calibration);

// "kivi, quarot and turboquant:seed=7": the calibration's quantizers.
std::string CalibratedQuantizers(const v1::Calibration& calibration);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_QUERY_H_
