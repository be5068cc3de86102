#include "services/allocation/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/allocation/baseline_map.h"
#include "services/allocation/cache_bytes.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/choice_table.h"
#include "services/allocation/continuous.h"
#include "services/allocation/group_widths.h"
#include "services/allocation/limit.h"
#include "services/allocation/noise.h"
#include "services/allocation/objective.h"
#include "services/allocation/solver/few_formats.h"
#include "services/allocation/solver/knapsack.h"
#include "services/allocation/width_bounds.h"
#include "services/common/canonical.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

using Measure = Limit::Measure;

const char* BudgetField(const v1::Budget& budget) {
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      return "code_bits";
    case v1::Budget::kEffectiveBits:
      return "effective_bits";
    case v1::Budget::kBytesPerToken:
      return "bytes_per_token";
    default:
      return "max_loss_increase";
  }
}

double BudgetValue(const v1::Budget& budget) {
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      return budget.code_bits();
    case v1::Budget::kEffectiveBits:
      return budget.effective_bits();
    case v1::Budget::kBytesPerToken:
      return budget.bytes_per_token();
    default:
      return budget.max_loss_increase();
  }
}

// Groups that get the same column, all K or all V.
using Unit = std::vector<int>;

class Planner {
 public:
  Planner(const v1::Calibration& calibration, const Query& query)
      : calibration_(calibration),
        query_(query),
        groups_(static_cast<int>(GroupCount(calibration.geometry()))),
        bytes_(calibration, query.cache),
        objective_(calibration, query.policy),
        limit_(MakeLimit(query.budget, groups_, bytes_)),
        bounds_(MakeBounds()),
        group_widths_(
            GroupWidths(query.policy, calibration.geometry(), bounds_)),
        choices_(
            calibration, objective_, query.tables, bounds_,
            group_widths_.ok() ? *group_widths_ : std::vector<uint16_t>()) {}

  absl::StatusOr<v1::BitMap> Plan() {
    if (!group_widths_.ok()) return group_widths_.status();
    const absl::Status formats = CheckFormats();
    if (!formats.ok()) return formats;
    absl::StatusOr<Assignment> map = Solve();
    if (!map.ok()) return map.status();
    return Describe(*map);
  }

 private:
  // The average width the paper's table of bounds is entered with: the budget's
  // own, or that of the uniform map within it. None for a limit on loss.
  std::optional<double> AverageCodeBits() const {
    if (limit_.measure == Measure::kLoss) return std::nullopt;
    if (query_.budget.has_code_bits()) return query_.budget.code_bits();
    const v1::Quantizer& quantizer =
        calibration_.tables(query_.tables[0]).quantizer();
    const ChoiceTable table(
        calibration_, objective_, query_.tables,
        {BoundsFor(query_.policy, quantizer, std::nullopt)});
    const auto uniform = BestBaseline(table, Baseline::kUniform, limit_);
    if (!uniform.has_value()) return std::nullopt;
    return static_cast<double>(uniform->code_bits) / groups_;
  }

  std::vector<WidthBounds> MakeBounds() const {
    std::optional<double> average;
    if (query_.policy.objective() == v1::Policy::PAPER) {
      average = AverageCodeBits();
    }
    std::vector<WidthBounds> bounds;
    for (int table : query_.tables) {
      bounds.push_back(BoundsFor(
          query_.policy, calibration_.tables(table).quantizer(), average));
    }
    return bounds;
  }

  absl::StatusOr<Assignment> Solve() {
    switch (query_.policy.strategy()) {
      case v1::Policy::UNIFORM:
        return SolveBaseline(Baseline::kUniform);
      case v1::Policy::K_CEIL_V_FLOOR:
        return SolveBaseline(Baseline::kKCeilVFloor);
      default:
        return query_.policy.separate_key_value() ? SolveSeparately()
                                                  : SolveJointly();
    }
  }

  absl::StatusOr<Assignment> SolveBaseline(Baseline baseline) {
    std::optional<Assignment> map = BestBaseline(choices_, baseline, limit_);
    if (map.has_value()) return *std::move(map);
    return BelowMinimum(LeastBaselineAmount(choices_, baseline, limit_));
  }

  absl::StatusOr<Assignment> SolveJointly() {
    std::vector<int> columns(groups_);
    const double needed = SolveUnits(Units({0, 1}), limit_.amount, &columns);
    if (needed > limit_.amount) return BelowMinimum(needed);
    return Summarize(choices_, std::move(columns));
  }

  // K and V each get half of the sum, which is the same average for both.
  absl::StatusOr<Assignment> SolveSeparately() {
    std::vector<int> columns(groups_);
    double half = limit_.amount / 2;
    if (limit_.measure != Measure::kLoss) half = std::floor(half);
    double needed = 0;
    for (int tensor : {0, 1}) {
      needed = std::max(needed, SolveUnits(Units({tensor}), half, &columns));
    }
    if (needed > half) return BelowMinimum(2 * needed);
    return Summarize(choices_, std::move(columns));
  }

  // The groups of the given tensors (0: K, 1: V), one by one or, layer-wise, a
  // layer's heads together.
  std::vector<Unit> Units(const std::vector<int>& tensors) const {
    const int heads = static_cast<int>(calibration_.geometry().kv_heads());
    const int together =
        query_.policy.strategy() == v1::Policy::LAYER_WISE ? heads : 1;
    std::vector<Unit> units;
    for (int first = 0; first < groups_; first += 2 * together) {
      for (int tensor : tensors) {
        Unit unit;
        for (int i = 0; i < together; ++i)
          unit.push_back(first + 2 * i + tensor);
        units.push_back(std::move(unit));
      }
    }
    return units;
  }

  // What a unit costs and what is to be minimised, by the limit's measure.
  Choice UnitChoice(const Unit& unit, int column) const {
    double value = 0, bytes = 0;
    for (int g : unit) {
      value += choices_.Value(g, column);
      bytes += static_cast<double>(choices_.Bytes(g, column));
    }
    // Without pages no map weighs more than another.
    if (bytes_.pages() == 0) bytes = 0;
    switch (limit_.measure) {
      case Measure::kCodeBits:
        return {static_cast<double>(choices_.columns()[column].width) *
                    static_cast<double>(unit.size()),
                value};
      case Measure::kPageBytes:
        return {bytes, value};
      case Measure::kLoss:
        break;
    }
    return {value / 2, bytes};
  }

  // What the solver is to choose from; formats are columns.
  FormatProblem MakeProblem(const std::vector<Unit>& units) const {
    const int all = static_cast<int>(choices_.columns().size());
    const int layer = 2 * static_cast<int>(calibration_.geometry().kv_heads());
    FormatProblem out;
    out.most = static_cast<int>(query_.policy.max_formats_per_layer());
    out.problem.groups.reserve(units.size());
    for (const Unit& unit : units) {
      std::vector<Choice>& choices = out.problem.groups.emplace_back();
      std::vector<int>& columns = out.format.emplace_back();
      out.layer.push_back(unit[0] / layer);
      choices.reserve(all);
      columns.reserve(all);
      for (int c : choices_.ByBytes(unit[0])) {
        // A unit's groups are allowed the same (see GroupWidths).
        if (!choices_.Allows(unit[0], c)) continue;
        choices.push_back(UnitChoice(unit, c));
        columns.push_back(c);
      }
    }
    return out;
  }

  // Whether every layer can do with as few formats as the policy wants.
  absl::Status CheckFormats() const {
    const uint32_t most = query_.policy.max_formats_per_layer();
    if (most == 0) return absl::OkStatus();
    const std::vector<double> costs =
        LowestLayerCosts(MakeProblem(Units({0, 1})));
    const auto none = std::find(costs.begin(), costs.end(), HUGE_VAL);
    if (none == costs.end()) return absl::OkStatus();
    return FieldError(
        "INVALID_POLICY", "policy.max_formats_per_layer",
        absl::StrCat("is ", most, ", with which layer ", none - costs.begin(),
                     " can't keep the bounds of its groups' widths"));
  }

  // Fills in the columns of the units' groups within `budget`, and returns it;
  // or returns the least that would do, which is larger.
  double SolveUnits(const std::vector<Unit>& units, double budget,
                    std::vector<int>* columns) {
    FormatProblem problem = MakeProblem(units);
    problem.problem.budget = budget;
    const std::optional<Solution> solution =
        problem.most > 0 ? SolveFewFormats(problem)
                         : SolveKnapsack(problem.problem);
    if (!solution.has_value()) {
      if (problem.most == 0) return LowestCost(problem.problem);
      const std::vector<double> costs = LowestLayerCosts(problem);
      return std::accumulate(costs.begin(), costs.end(), 0.0);
    }
    minimised_ += solution->value;
    gap_ += solution->gap;
    for (size_t u = 0; u < units.size(); ++u) {
      const int column = problem.format[u][solution->choice[u]];
      for (int g : units[u]) (*columns)[g] = column;
    }
    return budget;
  }

  absl::Status BelowMinimum(double amount) const {
    double minimum = BudgetFor(query_.budget, amount, groups_, bytes_);
    // Half sums of E round: the next number up certainly is enough.
    if (limit_.measure == Measure::kLoss) {
      minimum = std::nextafter(minimum * (1 + 1e-12), HUGE_VAL);
    }
    const char* field = BudgetField(query_.budget);
    const double requested = BudgetValue(query_.budget);
    return MakeError(
        absl::StatusCode::kOutOfRange, "BUDGET_BELOW_MINIMUM",
        absl::StrFormat("budget.%s is %.6g; the least that can be kept with "
                        "the allowed quantizers and widths is %.6g",
                        field, requested, minimum),
        {{"budget", field},
         {"requested", absl::StrFormat("%.17g", requested)},
         {"minimum", absl::StrFormat("%.17g", minimum)}});
  }

  absl::StatusOr<v1::BitMap> Describe(const Assignment& map) const {
    v1::BitMap out;
    const absl::StatusOr<ChildName> name =
        ParseCalibrationName(calibration_.name(), "calibration");
    if (!name.ok()) return name.status();
    out.set_name(ModelName(name->model));
    out.set_calibration(calibration_.name());
    *out.mutable_geometry() = calibration_.geometry();
    SetGroups(map, &out);
    *out.mutable_budget() = query_.budget;
    *out.mutable_policy() = ExplicitPolicy();
    *out.mutable_cache() = query_.cache;
    out.set_code_bits(static_cast<double>(map.code_bits) / groups_);
    out.set_effective_bits(bytes_.EffectiveBits(map.page_bytes));
    out.set_bytes_per_token(bytes_.BytesPerToken(map.page_bytes));
    out.set_objective_value(map.value);
    out.set_uniform_objective_value(BaselineValue(Baseline::kUniform));
    out.set_k_ceil_v_floor_objective_value(
        BaselineValue(Baseline::kKCeilVFloor));
    out.set_budget_left(std::max(0.0, BudgetValue(query_.budget) - Spent(map)));
    SetContinuous(map, &out);
    SetWithinNoise(map, &out);
    out.set_format_version(calibration_.tables(0).format_version());
    *out.mutable_means() = calibration_.means();
    if (gap_ > 0) out.set_optimality_gap(gap_ / minimised_);
    absl::StatusOr<std::string> digest = CanonicalDigest(out);
    if (!digest.ok()) return digest.status();
    out.set_name(BitMapName(name->model, *digest));
    return out;
  }

  // Only quantizers in use, in their canonical order.
  void SetGroups(const Assignment& map, v1::BitMap* out) const {
    std::vector<int> index(calibration_.tables_size(), -1);
    for (int column : map.column) {
      const Column& chosen = choices_.columns()[column];
      // In fp16 no quantizer is used, though one has to be named.
      if (chosen.width != kFp16Width) index[chosen.table] = 0;
    }
    for (int table : query_.tables) {
      if (index[table] < 0) continue;
      index[table] = out->quantizers_size();
      *out->add_quantizers() = calibration_.tables(table).quantizer();
    }
    if (out->quantizers().empty()) {
      *out->add_quantizers() =
          calibration_.tables(query_.tables[0]).quantizer();
    }
    for (int column : map.column) {
      const Column& chosen = choices_.columns()[column];
      out->add_quantizer_index(
          chosen.width == kFp16Width
              ? 0u
              : static_cast<uint32_t>(index[chosen.table]));
      out->add_width(static_cast<uint32_t>(chosen.width));
    }
  }

  // A bound that differs between the allowed quantizers stays 0, which means
  // each one's default.
  v1::Policy ExplicitPolicy() const {
    v1::Policy policy = query_.policy;
    const auto same = [this](int WidthBounds::*bound) {
      return std::all_of(bounds_.begin(), bounds_.end(),
                         [this, bound](const WidthBounds& b) {
                           return b.*bound == bounds_[0].*bound;
                         });
    };
    if (same(&WidthBounds::lower)) policy.set_min_width(bounds_[0].lower);
    if (same(&WidthBounds::upper)) policy.set_max_width(bounds_[0].upper);
    return policy;
  }

  double BaselineValue(Baseline baseline) const {
    const auto map = BestBaseline(choices_, baseline, limit_);
    return map.has_value() ? map->value : 0;
  }

  double Spent(const Assignment& map) const {
    switch (limit_.measure) {
      case Measure::kCodeBits:
        return static_cast<double>(map.code_bits) / groups_;
      case Measure::kPageBytes:
        return BudgetFor(query_.budget, static_cast<double>(map.page_bytes),
                         groups_, bytes_);
      case Measure::kLoss:
        break;
    }
    return map.value / 2;
  }

  void SetContinuous(const Assignment& map, v1::BitMap* out) const {
    if (!query_.policy.include_continuous()) return;
    const double average =
        query_.budget.has_code_bits()
            ? std::clamp(query_.budget.code_bits(),
                         static_cast<double>(bounds_[0].lower),
                         static_cast<double>(bounds_[0].upper))
            : static_cast<double>(map.code_bits) / groups_;
    for (double width :
         ContinuousWidths(objective_, query_.tables[0], groups_, bounds_[0],
                          average, query_.policy.separate_key_value())) {
      out->add_continuous_width(width);
    }
  }

  // Where each group's choice is its own, and E is what has an error.
  void SetWithinNoise(const Assignment& map, v1::BitMap* out) const {
    const v1::Policy& policy = query_.policy;
    if (policy.objective() != v1::Policy::LOSS_PROJECTED ||
        policy.strategy() != v1::Policy::ALLOCATED ||
        policy.separate_key_value() || policy.max_formats_per_layer() != 0) {
      return;
    }
    const Cost cost = limit_.measure == Measure::kCodeBits ? Cost::kCodeBits
                                                           : Cost::kPageBytes;
    for (bool open :
         GroupsWithinNoise(calibration_, choices_, map.column, cost)) {
      out->add_within_noise(open);
    }
  }

  const v1::Calibration& calibration_;
  const Query& query_;
  const int groups_;
  const CacheBytes bytes_;
  const Objective objective_;
  const Limit limit_;
  const std::vector<WidthBounds> bounds_;
  const absl::StatusOr<std::vector<uint16_t>> group_widths_;
  const ChoiceTable choices_;
  // Of the solutions: sums of what was minimised, and of the gaps.
  double minimised_ = 0;
  double gap_ = 0;
};

}  // namespace

absl::StatusOr<v1::BitMap> PlanBitMap(const v1::Calibration& calibration,
                                      const Query& query) {
  return Planner(calibration, query).Plan();
}

}  // namespace ratequant::allocation
