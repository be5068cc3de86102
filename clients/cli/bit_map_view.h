#ifndef RATEQUANT_CLIENTS_CLI_BIT_MAP_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_BIT_MAP_VIEW_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/text_style.h"
#include "ratequant/v1/bit_map.pb.h"

namespace ratequant::cli {

// "loss-projected", "attention-output", "paper" or "measured"; the ids
// --objective takes.
std::string ObjectiveName(v1::Policy::Objective objective);

// Whether half of the objective's sum estimates the loss increase in nats per
// token.
bool PredictsLoss(v1::Policy::Objective objective);

// "allocated", "uniform", ...; the ids --strategy takes.
std::string StrategyName(v1::Policy::Strategy strategy);

// "allocated, loss-projected, 2 to 8 bits, 3 rules": a policy in a line.
std::string PolicyText(const v1::Policy& policy);

// `value` against `base`: "38% less", "5% more", "the same"; empty when `base`
// isn't above zero, which means that there is nothing to compare with.
std::string Comparison(double value, double base);

// A bit map for people: a summary, how many groups got which width, and the
// picture of the widths. INTERNAL when the map's arrays don't fit its geometry.
//
// Under a budget of loss every map loses the same, and what tells them apart is
// cost: `uniform_bytes_per_token` is what the uniform map of the same budget
// costs, when it is known.
absl::StatusOr<std::string> RenderBitMap(
    const v1::BitMap& map, const TextStyle& style,
    std::optional<double> uniform_bytes_per_token = std::nullopt);

// Which heads' choices are within the tables' noise (BitMap.within_noise), by
// layer; a line that says so when the map doesn't know.
std::string RenderNoise(const v1::BitMap& map, const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_BIT_MAP_VIEW_H_
