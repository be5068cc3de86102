#include "services/allocation/evidence.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/status.h"

namespace ratequant::allocation {

absl::Status CheckEvidencePolicy(const v1::Policy& policy) {
  const double limit = policy.max_perplexity_increase();
  if (std::isfinite(limit) && limit >= 0) return absl::OkStatus();
  return FieldError("INVALID_POLICY", "policy.max_perplexity_increase",
                    absl::StrCat("is ", limit,
                                 "; it is a share of the perplexity in full "
                                 "precision, 0 or more"));
}

void ClearEvidencePolicy(v1::Policy* policy) {
  policy->clear_require_evaluated();
  policy->clear_max_perplexity_increase();
  policy->clear_keep_measured_worse();
}

bool WorseThanUniform(const v1::Evaluation& evaluation,
                      const std::string& map_name) {
  return map_name != evaluation.uniform_bit_map() &&
         evaluation.loss_minus_uniform() >
             evaluation.loss_minus_uniform_stderr();
}

std::string WorseReason(const v1::Evaluation& evaluation) {
  return absl::StrFormat(
      "measured %.4f ± %.4f nats per token worse than uniform over %d tokens "
      "(perplexity %.4g, uniform %.4g)",
      evaluation.loss_minus_uniform(), evaluation.loss_minus_uniform_stderr(),
      evaluation.tokens(), evaluation.perplexity(),
      evaluation.uniform_perplexity());
}

absl::Status CheckEvidence(const v1::Policy& policy,
                           const std::string& map_name,
                           const std::optional<v1::Evaluation>& evaluation) {
  const bool limited = policy.has_max_perplexity_increase();
  if (!policy.require_evaluated() && !limited) return absl::OkStatus();
  if (!evaluation.has_value()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "EVALUATION_MISSING",
        absl::StrCat(map_name,
                     " has no evaluation; measure its perplexity and attach "
                     "it with RecordEvaluation, or ask without "
                     "require_evaluated and max_perplexity_increase"),
        {{"bit_map", map_name}});
  }
  if (!limited) return absl::OkStatus();
  const double perplexity = map_name == evaluation->uniform_bit_map()
                                ? evaluation->uniform_perplexity()
                                : evaluation->perplexity();
  const double measured = perplexity / evaluation->fp_perplexity() - 1;
  if (measured <= policy.max_perplexity_increase()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "PERPLEXITY_TOO_HIGH",
      absl::StrFormat("%s measured a perplexity %.3g times that of full "
                      "precision; %.3g is allowed: ask for a larger budget",
                      map_name, 1 + measured,
                      1 + policy.max_perplexity_increase()),
      {{"bit_map", map_name},
       {"evaluation", evaluation->name()},
       {"measured", absl::StrFormat("%.17g", measured)},
       {"allowed",
        absl::StrFormat("%.17g", policy.max_perplexity_increase())}});
}

}  // namespace ratequant::allocation
