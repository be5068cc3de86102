#include "services/allocation/curve.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/allocation/baseline_curve.h"
#include "services/allocation/breakpoints.h"
#include "services/allocation/cache_bytes.h"
#include "services/allocation/choice_table.h"
#include "services/allocation/group_widths.h"
#include "services/allocation/objective.h"
#include "services/allocation/width_bounds.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

// A point takes at most 120 bytes: together less than 4 MiB.
constexpr uint32_t kMaxPoints = 1 << 15;

absl::StatusOr<ChoiceTable> MakeChoices(const v1::Calibration& calibration,
                                        const Query& query,
                                        const Objective& objective) {
  std::vector<WidthBounds> bounds;
  for (int table : query.tables) {
    bounds.push_back(BoundsFor(
        query.policy, calibration.tables(table).quantizer(), std::nullopt));
  }
  absl::StatusOr<std::vector<uint16_t>> widths =
      GroupWidths(query.policy, calibration.geometry(), bounds);
  if (!widths.ok()) return widths.status();
  return ChoiceTable(calibration, objective, query.tables, bounds,
                     *std::move(widths));
}

CurveCost CostFor(const v1::GetRateDistortionCurveRequest& request,
                  const CacheBytes& bytes) {
  if (request.cost() == v1::GetRateDistortionCurveRequest::CODE_BITS) {
    return CurveCost::kCodeBits;
  }
  return bytes.pages() == 0 ? CurveCost::kNothing : CurveCost::kPageBytes;
}

// The best map of one baseline over all quantizers, point by point.
class BestBaselines {
 public:
  BestBaselines(const ChoiceTable& table, Baseline baseline, CurveCost cost,
                std::vector<EvenSums>* sums) {
    for (int i = 0; i < table.table_count(); ++i) {
      curves_.emplace_back(table, i, baseline, cost, &(*sums)[i]);
    }
  }

  // 0 when none costs at most `cost`, which may not fall from call to call.
  double ValueWithin(int64_t cost) {
    std::optional<double> best;
    for (BaselineCurve& curve : curves_) {
      const std::optional<double> value = curve.ValueWithin(cost);
      if (value.has_value() && (!best.has_value() || *value < *best)) {
        best = value;
      }
    }
    return best.value_or(0);
  }

 private:
  std::vector<BaselineCurve> curves_;
};

// What part of the baseline's objective is saved.
double Gain(double value, double baseline) {
  return baseline > 0 ? 1 - value / baseline : 0;
}

// The memory of a capacity, shared evenly by its sequences.
class Share {
 public:
  explicit Share(const v1::Capacity& capacity)
      : memory_(capacity.memory_bytes()),
        sequences_(std::max<int64_t>(1, capacity.sequences())) {}

  bool Fits(const CacheBytes& bytes, int64_t page_bytes) const {
    return bytes.SequenceBytes(page_bytes) <= memory_ / sequences_;
  }

  int64_t MaxSequences(const CacheBytes& bytes, int64_t page_bytes) const {
    return memory_ / bytes.SequenceBytes(page_bytes);
  }

  int64_t MaxTokens(const CacheBytes& bytes, int64_t page_bytes) const {
    return bytes.MaxTokens(page_bytes, memory_ / sequences_);
  }

  // For a memory that even a map of the least page bytes is too large for.
  absl::Status NothingFits(const CacheBytes& bytes, int64_t page_bytes,
                           uint32_t context_tokens) const {
    const auto gib = [](int64_t n) {
      return absl::StrFormat("%.3g GiB", static_cast<double>(n) / (1 << 30));
    };
    const int64_t one = bytes.SequenceBytes(page_bytes);
    const int64_t most = std::numeric_limits<int64_t>::max();
    const int64_t needed = one > most / sequences_ ? most : one * sequences_;
    const int64_t fitting = MaxSequences(bytes, page_bytes);
    const int64_t tokens = MaxTokens(bytes, page_bytes);
    return MakeError(
        absl::StatusCode::kOutOfRange, "NOTHING_FITS",
        absl::StrCat(
            sequences_, " sequences of ", context_tokens, " tokens take ",
            gib(needed), " with the smallest map; capacity.memory_bytes is ",
            gib(memory_), ", in which that map fits ", fitting, " of them, or ",
            sequences_, " of at most ", tokens, " tokens"),
        {{"memory_bytes", absl::StrCat(memory_)},
         {"needed_bytes", absl::StrCat(needed)},
         {"max_sequences", absl::StrCat(fitting)},
         {"max_context_tokens", absl::StrCat(tokens)}});
  }

 private:
  const int64_t memory_;
  const int64_t sequences_;
};

void SetCost(const Breakpoint& point, const CacheBytes& bytes, int groups,
             v1::RateDistortionPoint* out) {
  out->set_effective_bits(bytes.EffectiveBits(point.page_bytes));
  out->set_bytes_per_token(bytes.BytesPerToken(point.page_bytes));
  out->set_code_bits(static_cast<double>(point.code_bits) / groups);
  out->set_sequence_bytes(bytes.SequenceBytes(point.page_bytes));
}

void SetLoss(double value, double uniform, double k_ceil_v_floor,
             v1::RateDistortionPoint* out) {
  out->set_objective_value(value);
  out->set_uniform_objective_value(uniform);
  out->set_k_ceil_v_floor_objective_value(k_ceil_v_floor);
  out->set_loss_increase(value / 2);
  out->set_gain_over_uniform(Gain(value, uniform));
  out->set_gain_over_k_ceil_v_floor(Gain(value, k_ceil_v_floor));
}

}  // namespace

absl::StatusOr<v1::RateDistortionCurve> PlanCurve(
    const v1::Calibration& calibration, const Query& query,
    const v1::GetRateDistortionCurveRequest& request) {
  const CacheBytes bytes(calibration, query.cache);
  const Objective objective(calibration, query.policy);
  const absl::StatusOr<ChoiceTable> choices =
      MakeChoices(calibration, query, objective);
  if (!choices.ok()) return choices.status();
  const ChoiceTable& table = *choices;
  const CurveCost cost = CostFor(request, bytes);
  std::vector<Breakpoint> points =
      FindBreakpoints(table, cost, query.policy.separate_key_value());
  std::optional<Share> share;
  if (request.has_capacity()) {
    share.emplace(request.capacity());
    const int64_t least = points.front().page_bytes;
    points.erase(std::remove_if(points.begin(), points.end(),
                                [&](const Breakpoint& point) {
                                  return !share->Fits(bytes, point.page_bytes);
                                }),
                 points.end());
    if (points.empty()) {
      return share->NothingFits(bytes, least, query.cache.context_tokens());
    }
  }
  v1::RateDistortionCurve curve;
  curve.set_calibration(calibration.name());
  *curve.mutable_geometry() = calibration.geometry();
  *curve.mutable_cache() = query.cache;
  curve.set_breakpoints(static_cast<uint32_t>(points.size()));
  std::vector<EvenSums> sums;
  for (int i = 0; i < table.table_count(); ++i) sums.emplace_back(table, i);
  BestBaselines uniform(table, Baseline::kUniform, cost, &sums);
  BestBaselines ceil_floor(table, Baseline::kKCeilVFloor, cost, &sums);
  const uint32_t asked = request.max_points();
  for (const Breakpoint& point : ThinBreakpoints(
           points, asked == 0 ? kMaxPoints : std::min(asked, kMaxPoints))) {
    v1::RateDistortionPoint* out = curve.add_points();
    SetCost(point, bytes, table.groups(), out);
    SetLoss(point.value, uniform.ValueWithin(point.cost),
            ceil_floor.ValueWithin(point.cost), out);
    if (!share.has_value()) continue;
    out->set_max_sequences(share->MaxSequences(bytes, point.page_bytes));
    out->set_max_context_tokens(share->MaxTokens(bytes, point.page_bytes));
  }
  return curve;
}

}  // namespace ratequant::allocation
