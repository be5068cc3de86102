#ifndef RATEQUANT_CLIENTS_CLI_PLAN_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_PLAN_VIEW_H_

#include <cstdint>
#include <string>

#include "clients/cli/text_style.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::cli {

// What was asked of a plan.
struct PlanQuestion {
  int64_t gpu_memory = 0;  // bytes
  int64_t weights = 0;     // bytes of it that aren't for caches
  uint32_t batch = 1;      // sequences at once
};

// Which maps of `curve`, the answer for that capacity, fit, the best first, and
// what each costs; and how to get the best one.
std::string RenderPlan(const v1::RateDistortionCurve& curve,
                       const PlanQuestion& question,
                       v1::Policy::Objective objective, const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_PLAN_VIEW_H_
