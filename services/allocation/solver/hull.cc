#include "services/allocation/solver/hull.h"

#include <algorithm>
#include <numeric>

namespace ratequant::allocation {
namespace {

// True when `b` lies above the line from `a` to `c`.
bool AboveLine(const Choice& a, const Choice& b, const Choice& c) {
  return (a.value - b.value) * (c.cost - b.cost) <
         (b.value - c.value) * (b.cost - a.cost);
}

}  // namespace

const std::vector<int>& HullBuilder::Build(const std::vector<Choice>& choices) {
  SortByCost(choices);
  hull_.clear();
  for (int i : order_) {
    if (!hull_.empty() && choices[i].value >= choices[hull_.back()].value) {
      continue;
    }
    if (!hull_.empty() && choices[i].cost == choices[hull_.back()].cost) {
      hull_.pop_back();
    }
    while (hull_.size() >= 2 && AboveLine(choices[hull_[hull_.size() - 2]],
                                          choices[hull_.back()], choices[i])) {
      hull_.pop_back();
    }
    hull_.push_back(i);
  }
  return hull_;
}

void HullBuilder::SortByCost(const std::vector<Choice>& choices) {
  if (order_.size() != choices.size()) {
    order_.resize(choices.size());
    std::iota(order_.begin(), order_.end(), 0);
  }
  const auto less = [&choices](int a, int b) {
    return choices[a].cost != choices[b].cost
               ? choices[a].cost < choices[b].cost
               : a < b;
  };
  if (!std::is_sorted(order_.begin(), order_.end(), less)) {
    std::sort(order_.begin(), order_.end(), less);
  }
}

std::vector<int> LowerHull(const std::vector<Choice>& choices) {
  return HullBuilder().Build(choices);
}

GreedyWalk::GreedyWalk(const std::vector<std::vector<Choice>>& groups)
    : groups_(groups), position_(groups.size(), 0) {
  hulls_.reserve(groups.size());
  std::vector<Entry> entries;
  entries.reserve(groups.size());
  HullBuilder builder;
  for (const auto& choices : groups) {
    hulls_.push_back(builder.Build(choices));
    if (hulls_.back().size() > 1) {
      const int group = static_cast<int>(hulls_.size()) - 1;
      entries.push_back({NextStep(group).slope, group});
    }
  }
  heap_ = std::priority_queue<Entry>(std::less<Entry>(), std::move(entries));
}

std::vector<int> GreedyWalk::Start() const {
  std::vector<int> start;
  start.reserve(hulls_.size());
  for (const auto& hull : hulls_) start.push_back(hull.front());
  return start;
}

GreedyWalk::Step GreedyWalk::NextStep(int group) const {
  const auto& hull = hulls_[group];
  const Choice& from = groups_[group][hull[position_[group]]];
  const int to = hull[position_[group] + 1];
  Step step;
  step.group = group;
  step.to = to;
  step.cost = groups_[group][to].cost - from.cost;
  step.gain = from.value - groups_[group][to].value;
  step.slope = step.gain / step.cost;
  return step;
}

std::optional<GreedyWalk::Step> GreedyWalk::Peek() const {
  if (heap_.empty()) return std::nullopt;
  return NextStep(heap_.top().group);
}

void GreedyWalk::Take() {
  const int group = heap_.top().group;
  heap_.pop();
  ++position_[group];
  if (position_[group] + 1 < static_cast<int>(hulls_[group].size())) {
    heap_.push({NextStep(group).slope, group});
  }
}

void GreedyWalk::Drop() { heap_.pop(); }

}  // namespace ratequant::allocation
