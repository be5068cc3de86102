#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "services/allocation/baseline_map.h"
#include "services/allocation/cache_bytes.h"
#include "services/allocation/choice_table.h"
#include "services/allocation/planner.h"
#include "services/allocation/solver/hull.h"
#include "services/allocation/width_bounds.h"

namespace ratequant::allocation {
namespace {

// A map on the curve, summed.
struct Breakpoint {
  int64_t page_bytes = 0;
  int64_t code_bits = 0;
  double value = 0;
};

// The greedy walk over the groups of the given tensors (0: K, 1: V).
std::vector<Breakpoint> Walk(const ChoiceTable& table, const CacheBytes& bytes,
                             const std::vector<int>& tensors) {
  std::vector<int> groups;
  for (int first = 0; first < table.groups(); first += 2) {
    for (int tensor : tensors) groups.push_back(first + tensor);
  }
  const int columns = static_cast<int>(table.columns().size());
  std::vector<std::vector<Choice>> choices;
  choices.reserve(groups.size());
  for (int g : groups) {
    std::vector<Choice>& group = choices.emplace_back();
    for (int c = 0; c < columns; ++c) {
      // Without pages no map weighs more than another.
      const int64_t cost = bytes.pages() == 0 ? 0 : table.Bytes(g, c);
      group.push_back({static_cast<double>(cost), table.Value(g, c)});
    }
  }
  GreedyWalk walk(choices);
  std::vector<int> now = walk.Start();
  Breakpoint point;
  for (size_t i = 0; i < groups.size(); ++i) {
    point.page_bytes += table.Bytes(groups[i], now[i]);
    point.code_bits += table.columns()[now[i]].width;
    point.value += table.Value(groups[i], now[i]);
  }
  std::vector<Breakpoint> points = {point};
  while (const std::optional<GreedyWalk::Step> step = walk.Peek()) {
    const int g = groups[step->group], from = now[step->group];
    point.page_bytes += table.Bytes(g, step->to) - table.Bytes(g, from);
    point.code_bits +=
        table.columns()[step->to].width - table.columns()[from].width;
    point.value = std::max(0.0, point.value - step->gain);
    now[step->group] = step->to;
    points.push_back(point);
    walk.Take();
  }
  return points;
}

// The last point that costs at most `bytes`; the first costs at most that.
const Breakpoint& Within(const std::vector<Breakpoint>& points, int64_t bytes) {
  return *std::prev(std::upper_bound(
      points.begin(), points.end(), bytes,
      [](int64_t limit, const Breakpoint& p) { return limit < p.page_bytes; }));
}

// K and V each within the same bytes, at every breakpoint of either.
std::vector<Breakpoint> Combine(const std::vector<Breakpoint>& keys,
                                const std::vector<Breakpoint>& values) {
  const int64_t least = std::max(keys[0].page_bytes, values[0].page_bytes);
  std::vector<int64_t> limits = {least};
  for (const auto* points : {&keys, &values}) {
    for (const Breakpoint& point : *points) {
      if (point.page_bytes > least) limits.push_back(point.page_bytes);
    }
  }
  std::sort(limits.begin(), limits.end());
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  std::vector<Breakpoint> combined;
  for (int64_t limit : limits) {
    const Breakpoint& k = Within(keys, limit);
    const Breakpoint& v = Within(values, limit);
    combined.push_back({k.page_bytes + v.page_bytes, k.code_bits + v.code_bits,
                        k.value + v.value});
  }
  return combined;
}

// At most `max_points`: the last breakpoint at or below each of as many costs
// evenly spaced from the first to the last.
std::vector<Breakpoint> Thin(const std::vector<Breakpoint>& points,
                             uint32_t max_points) {
  if (max_points == 0 || points.size() <= max_points) return points;
  std::vector<Breakpoint> thin;
  const int64_t first = points.front().page_bytes;
  const int64_t range = points.back().page_bytes - first;
  const int64_t last = std::max<int64_t>(1, int64_t{max_points} - 1);
  for (int64_t i = 0; i < max_points; ++i) {
    const Breakpoint& point = Within(points, first + range * i / last);
    if (thin.empty() || point.page_bytes > thin.back().page_bytes) {
      thin.push_back(point);
    }
  }
  return thin;
}

// The uniform maps of one quantizer, walked in ascending bits.
class UniformMaps {
 public:
  // `table` must outlive it.
  UniformMaps(const ChoiceTable& table, int i, bool weightless)
      : table_(table),
        i_(i),
        weightless_(weightless),
        next_(int64_t{table.groups()} * table.Bounds(i).lower),
        end_(int64_t{table.groups()} * table.Bounds(i).upper + 1) {}

  // The objective of the map with the most bits that weighs at most
  // `page_bytes`, which may not fall from call to call.
  std::optional<double> ValueWithin(int64_t page_bytes) {
    const int64_t before = next_;
    while (next_ < end_ && (weightless_ || Bytes(next_) <= page_bytes)) ++next_;
    if (next_ != before) {
      value_ = BaselineAt(table_, i_, Baseline::kUniform, next_ - 1).value;
    }
    return value_;
  }

 private:
  int64_t Bytes(int64_t total) const {
    return BaselineBytes(table_, i_, Baseline::kUniform, total);
  }

  const ChoiceTable& table_;
  const int i_;
  const bool weightless_;
  int64_t next_;  // sum of widths of the first map that is too heavy
  const int64_t end_;
  std::optional<double> value_;
};

ChoiceTable MakeChoices(const v1::Calibration& calibration, const Query& query,
                        const Objective& objective) {
  std::vector<WidthBounds> bounds;
  for (int table : query.tables) {
    bounds.push_back(BoundsFor(
        query.policy, calibration.tables(table).quantizer(), std::nullopt));
  }
  return ChoiceTable(calibration, objective, query.tables, bounds);
}

}  // namespace

v1::RateDistortionCurve PlanCurve(const v1::Calibration& calibration,
                                  const Query& query, uint32_t max_points) {
  const CacheBytes bytes(calibration, query.cache);
  const Objective objective(calibration, query.policy);
  const ChoiceTable table = MakeChoices(calibration, query, objective);
  const std::vector<Breakpoint> points =
      query.policy.separate_key_value()
          ? Combine(Walk(table, bytes, {0}), Walk(table, bytes, {1}))
          : Walk(table, bytes, {0, 1});
  std::vector<UniformMaps> uniform;
  for (int i = 0; i < table.table_count(); ++i) {
    uniform.emplace_back(table, i, bytes.pages() == 0);
  }
  v1::RateDistortionCurve curve;
  curve.set_calibration(calibration.name());
  for (const Breakpoint& point : Thin(points, max_points)) {
    v1::RateDistortionPoint* out = curve.add_points();
    out->set_effective_bits(bytes.EffectiveBits(point.page_bytes));
    out->set_bytes_per_token(bytes.BytesPerToken(point.page_bytes));
    out->set_code_bits(static_cast<double>(point.code_bits) / table.groups());
    out->set_objective_value(point.value);
    std::optional<double> best;
    for (UniformMaps& maps : uniform) {
      const std::optional<double> value = maps.ValueWithin(point.page_bytes);
      if (value.has_value() && (!best.has_value() || *value < *best)) {
        best = value;
      }
    }
    out->set_uniform_objective_value(best.value_or(0));
  }
  return curve;
}

}  // namespace ratequant::allocation
