#ifndef RATEQUANT_SERVICES_ALLOCATION_EVIDENCE_H_
#define RATEQUANT_SERVICES_ALLOCATION_EVIDENCE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/evaluation.pb.h"

namespace ratequant::allocation {

// What measurements say about a map. All functions are thread-safe.

// The fields of a policy that choose by measurement. INVALID_ARGUMENT
// (INVALID_POLICY) when the limit isn't a number from 0.
absl::Status CheckEvidencePolicy(const v1::Policy& policy);

// Takes those fields out: what is left decides which map is solved.
void ClearEvidencePolicy(v1::Policy* policy);

// Whether `evaluation`, which measured the map, found it worse than uniform by
// more than the standard error. Never of the uniform map itself.
bool WorseThanUniform(const v1::Evaluation& evaluation,
                      const std::string& map_name);

// One sentence: by how much it was worse, and on what.
std::string WorseReason(const v1::Evaluation& evaluation);

// OK when `policy` lets a map with this newest evaluation be the answer.
// FAILED_PRECONDITION: EVALUATION_MISSING when there is none,
// PERPLEXITY_TOO_HIGH when it measured too high, with `bit_map`, `measured` and
// `allowed` in the metadata.
absl::Status CheckEvidence(const v1::Policy& policy,
                           const std::string& map_name,
                           const std::optional<v1::Evaluation>& evaluation);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_EVIDENCE_H_
