#include "services/allocation/breakpoints.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "services/allocation/solver/hull.h"

namespace ratequant::allocation {
namespace {

int64_t CostOf(const ChoiceTable& table, CurveCost cost, int group,
               int column) {
  switch (cost) {
    case CurveCost::kPageBytes:
      return table.Bytes(group, column);
    case CurveCost::kCodeBits:
      return table.columns()[column].width;
    case CurveCost::kNothing:
      break;
  }
  return 0;
}

// The hull of all groups of the given tensors (0: K, 1: V), from the greedy
// walk over the hulls of each: its steps are the edges of their sum.
std::vector<Breakpoint> Walk(const ChoiceTable& table, CurveCost cost,
                             const std::vector<int>& tensors) {
  std::vector<int> groups;
  for (int first = 0; first < table.groups(); first += 2) {
    for (int tensor : tensors) groups.push_back(first + tensor);
  }
  const int columns = static_cast<int>(table.columns().size());
  std::vector<std::vector<Choice>> choices;
  choices.reserve(groups.size());
  std::vector<std::vector<int>> allowed;  // the columns of each one's choices
  allowed.reserve(groups.size());
  for (int g : groups) {
    std::vector<Choice>& group = choices.emplace_back();
    std::vector<int>& its_columns = allowed.emplace_back();
    group.reserve(columns);
    its_columns.reserve(columns);
    for (int c = 0; c < columns; ++c) {
      if (!table.Allows(g, c)) continue;
      its_columns.push_back(c);
      group.push_back(
          {static_cast<double>(CostOf(table, cost, g, c)), table.Value(g, c)});
    }
  }
  GreedyWalk walk(choices);
  std::vector<int> now = walk.Start();
  for (size_t i = 0; i < now.size(); ++i) now[i] = allowed[i][now[i]];
  Breakpoint point;
  const auto add = [&](int g, int column, int sign) {
    point.cost += sign * CostOf(table, cost, g, column);
    point.page_bytes += sign * table.Bytes(g, column);
    point.code_bits += sign * table.columns()[column].width;
  };
  for (size_t i = 0; i < groups.size(); ++i) {
    add(groups[i], now[i], 1);
    point.value += table.Value(groups[i], now[i]);
  }
  std::vector<Breakpoint> points = {point};
  double slope = HUGE_VAL;
  while (const std::optional<GreedyWalk::Step> step = walk.Peek()) {
    const int g = groups[step->group];
    const int to = allowed[step->group][step->to];
    add(g, now[step->group], -1);
    add(g, to, 1);
    point.value = std::max(0.0, point.value - step->gain);
    now[step->group] = to;
    // On the same edge as the step before: that one wasn't a vertex.
    if (step->slope == slope) points.pop_back();
    slope = step->slope;
    points.push_back(point);
    walk.Take();
  }
  return points;
}

// The last point that costs at most `cost`; the first costs at most that.
const Breakpoint& Within(const std::vector<Breakpoint>& points, int64_t cost) {
  return *std::prev(std::upper_bound(
      points.begin(), points.end(), cost,
      [](int64_t limit, const Breakpoint& p) { return limit < p.cost; }));
}

// K and V each within the same cost, at every breakpoint of either.
std::vector<Breakpoint> Combine(const std::vector<Breakpoint>& keys,
                                const std::vector<Breakpoint>& values) {
  const int64_t least = std::max(keys[0].cost, values[0].cost);
  std::vector<int64_t> limits = {least};
  for (const auto* points : {&keys, &values}) {
    for (const Breakpoint& point : *points) {
      if (point.cost > least) limits.push_back(point.cost);
    }
  }
  std::sort(limits.begin(), limits.end());
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  std::vector<Breakpoint> combined;
  combined.reserve(limits.size());
  for (int64_t limit : limits) {
    const Breakpoint& k = Within(keys, limit);
    const Breakpoint& v = Within(values, limit);
    combined.push_back({k.cost + v.cost, k.page_bytes + v.page_bytes,
                        k.code_bits + v.code_bits, k.value + v.value});
  }
  return combined;
}

}  // namespace

std::vector<Breakpoint> FindBreakpoints(const ChoiceTable& table,
                                        CurveCost cost, bool separate) {
  return separate ? Combine(Walk(table, cost, {0}), Walk(table, cost, {1}))
                  : Walk(table, cost, {0, 1});
}

std::vector<Breakpoint> ThinBreakpoints(const std::vector<Breakpoint>& points,
                                        uint32_t max_points) {
  if (points.size() <= max_points) return points;
  std::vector<Breakpoint> thin;
  const int64_t first = points.front().cost;
  const int64_t range = points.back().cost - first;
  const int64_t last = std::max<int64_t>(1, int64_t{max_points} - 1);
  for (int64_t i = 0; i < max_points; ++i) {
    const Breakpoint& point = Within(points, first + range * i / last);
    if (thin.empty() || point.cost > thin.back().cost) thin.push_back(point);
  }
  return thin;
}

}  // namespace ratequant::allocation
