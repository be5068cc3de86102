#include "services/allocation/solver/exact_core.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace ratequant::allocation {
namespace {

// States kept after one group. Enough for proofs in practice; a beam beyond.
constexpr size_t kMaxStates = 2048;
// Relative difference below which two sums count as equal.
constexpr double kTolerance = 1e-12;

// A choice that may be part of a better map.
struct Open {
  int choice = 0;
  double cost = 0;
  double penalty = 0;
};

// A group with more than one of them.
struct OpenGroup {
  int group = 0;
  std::vector<Open> choices;
  double lowest = 0;   // cost
  double highest = 0;  // cost
};

// A selection for the groups seen so far.
struct State {
  double cost = 0;
  double penalty = 0;
  int parent = -1;
  int choice = -1;
};

class Core {
 public:
  Core(const Problem& problem, double slope, double value)
      : problem_(problem), slope_(slope) {
    FindBest();
    gap_ = value - bound_;
    for (int g = 0; g < static_cast<int>(problem.groups.size()); ++g) {
      AddGroup(g);
    }
  }

  double gap() const { return gap_; }
  bool cut() const { return cut_; }

  // The best selection with a gap below `gap()`, nullopt when there is none.
  std::optional<std::vector<int>> Search() {
    std::vector<std::vector<State>> stages = {{{fixed_cost_, 0, -1, -1}}};
    double lowest = 0, highest = 0;
    for (const OpenGroup& open : open_) {
      lowest += open.lowest;
      highest += open.highest;
    }
    for (const OpenGroup& open : open_) {
      lowest -= open.lowest;
      highest -= open.highest;
      stages.push_back(Extend(stages.back(), open, lowest, highest));
      if (stages.back().empty()) return std::nullopt;
    }
    return Backtrack(stages);
  }

 private:
  double Price(const Choice& choice) const {
    return choice.value + slope_ * choice.cost;
  }

  // The linear bound, and the choice each group would take at that price.
  void FindBest() {
    bound_ = -slope_ * problem_.budget;
    best_.reserve(problem_.groups.size());
    for (const auto& choices : problem_.groups) {
      int best = 0;
      for (int j = 1; j < static_cast<int>(choices.size()); ++j) {
        if (Price(choices[j]) < Price(choices[best])) best = j;
      }
      best_.push_back(best);
      bound_ += Price(choices[best]);
    }
  }

  void AddGroup(int g) {
    const auto& choices = problem_.groups[g];
    const double base = Price(choices[best_[g]]);
    OpenGroup open;
    open.group = g;
    for (int j = 0; j < static_cast<int>(choices.size()); ++j) {
      const double penalty = std::max(0.0, Price(choices[j]) - base);
      if (penalty <= gap_)
        open.choices.push_back({j, choices[j].cost, penalty});
    }
    if (open.choices.size() < 2) {
      fixed_cost_ += choices[best_[g]].cost;
      return;
    }
    const auto [low, high] = std::minmax_element(
        open.choices.begin(), open.choices.end(),
        [](const Open& a, const Open& b) { return a.cost < b.cost; });
    open.lowest = low->cost;
    open.highest = high->cost;
    open_.push_back(std::move(open));
  }

  // Gap a state reaches at best, when the groups still to come cost at least
  // `lowest` and at most `highest`; infinite when none of them fits.
  double BestGap(const State& state, double lowest, double highest) const {
    if (state.cost + lowest > problem_.budget) {
      return std::numeric_limits<double>::infinity();
    }
    const double idle = problem_.budget - state.cost - highest;
    return state.penalty + slope_ * std::max(0.0, idle);
  }

  std::vector<State> Extend(const std::vector<State>& states,
                            const OpenGroup& open, double lowest,
                            double highest) {
    std::vector<State> next;
    for (size_t p = 0; p < states.size(); ++p) {
      for (const Open& choice : open.choices) {
        const State state = {states[p].cost + choice.cost,
                             states[p].penalty + choice.penalty,
                             static_cast<int>(p), choice.choice};
        if (BestGap(state, lowest, highest) <= gap_) next.push_back(state);
      }
    }
    RemoveDominated(&next);
    if (next.size() > kMaxStates) {
      cut_ = true;
      std::stable_sort(
          next.begin(), next.end(), [&](const State& a, const State& b) {
            return BestGap(a, lowest, highest) < BestGap(b, lowest, highest);
          });
      next.resize(kMaxStates);
      RemoveDominated(&next);
    }
    return next;
  }

  // Keeps, sorted by cost, the states that no cheaper state beats in value.
  void RemoveDominated(std::vector<State>* states) const {
    const auto value = [this](const State& s) {
      return s.penalty - slope_ * s.cost;
    };
    std::stable_sort(
        states->begin(), states->end(), [&](const State& a, const State& b) {
          return a.cost != b.cost ? a.cost < b.cost : value(a) < value(b);
        });
    double best = std::numeric_limits<double>::infinity();
    const auto dominated = [&](const State& s) {
      if (value(s) >= best) return true;
      best = value(s);
      return false;
    };
    states->erase(std::remove_if(states->begin(), states->end(), dominated),
                  states->end());
  }

  std::vector<int> Backtrack(
      const std::vector<std::vector<State>>& stages) const {
    // Sorted by cost with falling value: the last one is the best.
    int index = static_cast<int>(stages.back().size()) - 1;
    std::vector<int> choice = best_;
    for (size_t stage = stages.size() - 1; stage > 0; --stage) {
      const State& state = stages[stage][index];
      choice[open_[stage - 1].group] = state.choice;
      index = state.parent;
    }
    return choice;
  }

  const Problem& problem_;
  const double slope_;
  std::vector<int> best_;
  std::vector<OpenGroup> open_;
  double fixed_cost_ = 0;
  double bound_ = 0;
  double gap_ = 0;
  bool cut_ = false;
};

}  // namespace

void ImproveToOptimum(const Problem& problem, double slope,
                      Solution* solution) {
  Core core(problem, slope, solution->value);
  if (core.gap() <= kTolerance * solution->value) {
    solution->optimal = true;
    return;
  }
  const std::optional<std::vector<int>> choice = core.Search();
  solution->optimal = !core.cut();
  if (!choice.has_value()) return;
  Solution better;
  for (size_t g = 0; g < choice->size(); ++g) {
    better.cost += problem.groups[g][(*choice)[g]].cost;
    better.value += problem.groups[g][(*choice)[g]].value;
  }
  // Only a real improvement: among equals the greedy solution has the order
  // of ties that is promised.
  if (better.cost <= problem.budget &&
      better.value < solution->value * (1 - kTolerance)) {
    better.choice = *choice;
    better.optimal = solution->optimal;
    *solution = std::move(better);
  }
}

}  // namespace ratequant::allocation
