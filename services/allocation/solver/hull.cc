#include "services/allocation/solver/hull.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace ratequant::allocation {
namespace {

// Sorted by cost, and every next one strictly better.
std::vector<int> ParetoFront(const std::vector<Choice>& choices) {
  std::vector<int> order(choices.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&choices](int i) {
    return std::tuple(choices[i].cost, choices[i].value, i);
  };
  const auto less = [&key](int a, int b) { return key(a) < key(b); };
  if (!std::is_sorted(order.begin(), order.end(), less)) {
    std::sort(order.begin(), order.end(), less);
  }
  std::vector<int> front;
  for (int i : order) {
    if (front.empty() || choices[i].value < choices[front.back()].value) {
      front.push_back(i);
    }
  }
  return front;
}

// True when `b` lies above the line from `a` to `c`.
bool AboveLine(const Choice& a, const Choice& b, const Choice& c) {
  return (a.value - b.value) * (c.cost - b.cost) <
         (b.value - c.value) * (b.cost - a.cost);
}

}  // namespace

std::vector<int> LowerHull(const std::vector<Choice>& choices) {
  std::vector<int> hull;
  for (int i : ParetoFront(choices)) {
    while (hull.size() >= 2 && AboveLine(choices[hull[hull.size() - 2]],
                                         choices[hull.back()], choices[i])) {
      hull.pop_back();
    }
    hull.push_back(i);
  }
  return hull;
}

GreedyWalk::GreedyWalk(const std::vector<std::vector<Choice>>& groups)
    : groups_(groups), position_(groups.size(), 0) {
  hulls_.reserve(groups.size());
  std::vector<Entry> entries;
  entries.reserve(groups.size());
  for (const auto& choices : groups) {
    hulls_.push_back(LowerHull(choices));
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
