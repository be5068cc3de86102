#include "services/allocation/limit.h"

#include <cmath>
#include <cstdint>

namespace ratequant::allocation {

Limit MakeLimit(const v1::Budget& budget, int groups, const CacheBytes& bytes) {
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      // 2.3 * 180 is a little below or above 414: both mean 414.
      return {Limit::Measure::kCodeBits,
              std::floor(budget.code_bits() * groups + 1e-6)};
    case v1::Budget::kEffectiveBits:
      return {Limit::Measure::kPageBytes,
              bytes.PageBytesForEffectiveBits(budget.effective_bits())};
    case v1::Budget::kBytesPerToken:
      return {Limit::Measure::kPageBytes,
              bytes.PageBytesForBytesPerToken(budget.bytes_per_token())};
    default:
      return {Limit::Measure::kLoss, budget.max_loss_increase()};
  }
}

double BudgetFor(const v1::Budget& budget, double amount, int groups,
                 const CacheBytes& bytes) {
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      return amount / groups;
    case v1::Budget::kEffectiveBits:
      return bytes.EffectiveBits(static_cast<int64_t>(amount));
    case v1::Budget::kBytesPerToken:
      return bytes.BytesPerToken(static_cast<int64_t>(amount));
    default:
      return amount;
  }
}

}  // namespace ratequant::allocation
