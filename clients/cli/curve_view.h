#ifndef RATEQUANT_CLIENTS_CLI_CURVE_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_CURVE_VIEW_H_

#include <string>

#include "clients/cli/text_style.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::cli {

// A table of the curve's points and a plot of them beside uniform maps.
// `objective` says what the points' values are.
std::string RenderCurve(const v1::RateDistortionCurve& curve,
                        v1::Policy::Objective objective,
                        const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_CURVE_VIEW_H_
