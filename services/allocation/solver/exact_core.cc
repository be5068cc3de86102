#include "services/allocation/solver/exact_core.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace ratequant::allocation {
namespace {

// States kept after one group, and states made in all. Proofs in practice need
// far fewer; beyond, the search drops the least promising and says so.
constexpr size_t kMaxStates = 1 << 14;
constexpr size_t kMaxNodes = 1 << 21;
// Relative difference below which two values count as equal.
constexpr double kTolerance = 1e-12;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The greatest number that all differences of values are multiples of, where
// values are bytes or other whole numbers; else 0. Solutions of unlike values
// are at least that far apart.
double ValueUnit(const Problem& problem) {
  constexpr double kMost = 1 << 30;
  int64_t unit = 0;
  for (const auto& choices : problem.groups) {
    for (const Choice& choice : choices) {
      if (choice.value > kMost || choice.value != std::floor(choice.value)) {
        return 0;
      }
      unit =
          std::gcd(unit, static_cast<int64_t>(choice.value - choices[0].value));
    }
  }
  return static_cast<double>(unit);
}

// Another choice than the solution's.
struct Move {
  int choice = 0;
  double cost = 0;     // more than the solution's; not 0
  double penalty = 0;  // >= 0
};

// The moves of one group.
struct OpenGroup {
  int group = 0;
  size_t first = 0, last = 0;  // in moves_
  double rate = 0;             // least penalty per cost shifted
};

// Least penalties per cost that the groups to come can add or remove.
struct Rates {
  double add = kInfinity;
  double remove = kInfinity;
};

// Moves of the groups seen so far.
struct State {
  double cost = 0;
  double penalty = 0;
  int node = -1;
};

// A state's last move.
struct Node {
  int parent = -1;
  int group = 0;
  int choice = 0;
};

class Core {
 public:
  // `slack` is what the solution leaves of the budget.
  Core(const Problem& problem, double slope, const Solution& solution,
       double slack)
      : problem_(problem),
        slope_(slope),
        solution_(solution),
        slack_(slack),
        least_gain_(
            std::max(kTolerance * solution.value, 0.99 * ValueUnit(problem))),
        excess_(slope_ * slack_) {}

  // The best solution's excess over the linear bound.
  double excess() const { return excess_; }
  // The least excess any solution can have.
  double lowest_excess() const { return std::min(excess_, lowest_dropped_); }

  void Search() {
    if (excess_ <= least_gain_) return;
    TryMoves();
    Open();
    std::vector<State> states = {State()}, next, scratch;
    for (size_t i = 0; i < open_.size() && !states.empty(); ++i) {
      Extend(states, open_[i], rates_[i + 1], &next, &scratch);
      states.swap(next);
    }
  }

  // The best solution's choices.
  std::vector<int> Choices() const {
    std::vector<int> choice = solution_.choice;
    if (best_move_.group >= 0) choice[best_move_.group] = best_move_.choice;
    for (int n = best_node_; n >= 0; n = nodes_[n].parent) {
      choice[nodes_[n].group] = nodes_[n].choice;
    }
    return choice;
  }

 private:
  // What a choice loses against the solution's, whose is `base`, at the price.
  double Penalty(const Choice& choice, const Choice& base) const {
    return std::max(
        0.0, (choice.value - base.value) + slope_ * (choice.cost - base.cost));
  }

  bool Improves(double excess) const { return excess < excess_ - least_gain_; }

  // The best single move: a good solution at once leaves few groups open. Notes
  // the least penalty of each group, so that most aren't looked at again.
  void TryMoves() {
    least_penalty_.assign(problem_.groups.size(), kInfinity);
    for (size_t g = 0; g < problem_.groups.size(); ++g) {
      const std::vector<Choice>& choices = problem_.groups[g];
      const Choice& base = choices[solution_.choice[g]];
      for (size_t j = 0; j < choices.size(); ++j) {
        const double cost = choices[j].cost - base.cost;
        const double penalty = Penalty(choices[j], base);
        if (cost != 0) {
          least_penalty_[g] = std::min(least_penalty_[g], penalty);
        }
        const double excess = penalty + slope_ * (slack_ - cost);
        if (cost > slack_ || !Improves(excess)) continue;
        excess_ = excess;
        best_move_ = {-1, static_cast<int>(g), static_cast<int>(j)};
      }
    }
  }

  void Open() {
    for (size_t g = 0; g < problem_.groups.size(); ++g) {
      if (!Improves(least_penalty_[g])) continue;
      const std::vector<Choice>& choices = problem_.groups[g];
      const Choice& base = choices[solution_.choice[g]];
      OpenGroup open = {static_cast<int>(g), moves_.size(), 0, kInfinity};
      for (size_t j = 0; j < choices.size(); ++j) {
        const double cost = choices[j].cost - base.cost;
        const double penalty = Penalty(choices[j], base);
        if (cost == 0 || !Improves(penalty)) continue;
        moves_.push_back({static_cast<int>(j), cost, penalty});
        open.rate = std::min(open.rate, penalty / std::abs(cost));
      }
      open.last = moves_.size();
      open_.push_back(open);
    }
    std::sort(open_.begin(), open_.end(),
              [](const OpenGroup& a, const OpenGroup& b) {
                return a.rate != b.rate ? a.rate < b.rate : a.group < b.group;
              });
    rates_.resize(open_.size() + 1);
    for (size_t i = open_.size(); i-- > 0;) {
      rates_[i] = rates_[i + 1];
      for (size_t m = open_[i].first; m < open_[i].last; ++m) {
        const Move& move = moves_[m];
        double& rate = move.cost > 0 ? rates_[i].add : rates_[i].remove;
        rate = std::min(rate, move.penalty / std::abs(move.cost));
      }
    }
  }

  // The least excess a state can come to with the groups to come.
  double Bound(double cost, double penalty, const Rates& rates) const {
    const double left = slack_ - cost;
    if (left < 0) return penalty - left * rates.remove;
    return left == 0 ? penalty : penalty + left * std::min(slope_, rates.add);
  }

  // A state's value, up to a constant.
  double Value(const State& state) const {
    return state.penalty - slope_ * state.cost;
  }

  // All states with and without a move of `open`, sorted by cost with falling
  // value; `rates` are those of the groups after it.
  void Extend(const std::vector<State>& states, const OpenGroup& open,
              const Rates& rates, std::vector<State>* next,
              std::vector<State>* scratch) {
    next->clear();
    double best = kInfinity;
    for (const State& state : states) Keep(state, rates, &best, next);
    for (size_t m = open.first; m < open.last; ++m) {
      if (!Improves(moves_[m].penalty)) continue;
      Merge(states, open.group, moves_[m], rates, next, scratch);
      next->swap(*scratch);
    }
    if (next->size() > kMaxStates || nodes_.size() > kMaxNodes) {
      DropWorst(rates, next);
    }
  }

  // Appends a state that is better than the cheaper ones and may lead to a
  // better solution.
  void Keep(const State& state, const Rates& rates, double* best,
            std::vector<State>* out) const {
    const double value = Value(state);
    if (value >= *best) return;
    if (!Improves(Bound(state.cost, state.penalty, rates))) return;
    *best = value;
    out->push_back(state);
  }

  // Into `out`, `kept` and what `move` makes of `states`.
  void Merge(const std::vector<State>& states, int group, const Move& move,
             const Rates& rates, std::vector<State>* kept,
             std::vector<State>* out) {
    out->clear();
    double best = kInfinity;
    size_t k = 0;
    for (const State& state : states) {
      State moved = {state.cost + move.cost, state.penalty + move.penalty, -1};
      while (k < kept->size() && (*kept)[k].cost <= moved.cost) {
        Keep((*kept)[k++], rates, &best, out);
      }
      if (Value(moved) >= best) continue;
      const bool solves = moved.cost <= slack_;
      const double excess = moved.penalty + slope_ * (slack_ - moved.cost);
      if (!Improves(Bound(moved.cost, moved.penalty, rates)) &&
          !(solves && Improves(excess))) {
        continue;
      }
      moved.node = static_cast<int>(nodes_.size());
      nodes_.push_back({state.node, group, move.choice});
      if (solves && Improves(excess)) {
        excess_ = excess;
        best_node_ = moved.node;
        best_move_.group = -1;
      }
      Keep(moved, rates, &best, out);
    }
    while (k < kept->size()) Keep((*kept)[k++], rates, &best, out);
  }

  // Keeps the states of least bound.
  void DropWorst(const Rates& rates, std::vector<State>* states) {
    const size_t most = nodes_.size() > kMaxNodes ? 0 : kMaxStates / 2;
    const auto bound = [&](const State& state) {
      return Bound(state.cost, state.penalty, rates);
    };
    std::stable_sort(
        states->begin(), states->end(),
        [&](const State& a, const State& b) { return bound(a) < bound(b); });
    if (states->size() > most) {
      lowest_dropped_ = std::min(lowest_dropped_, bound((*states)[most]));
      states->resize(most);
    }
    std::sort(states->begin(), states->end(),
              [](const State& a, const State& b) { return a.cost < b.cost; });
  }

  const Problem& problem_;
  const double slope_;
  const Solution& solution_;
  const double slack_;
  const double least_gain_;  // less is rounding
  double excess_;
  double lowest_dropped_ = kInfinity;
  std::vector<double> least_penalty_;  // [groups], of other costs
  std::vector<Move> moves_;
  std::vector<OpenGroup> open_;
  std::vector<Rates> rates_;  // [open + 1], of the groups from there on
  std::vector<Node> nodes_;
  Node best_move_ = {-1, -1, -1};
  int best_node_ = -1;
};

}  // namespace

void ImproveToOptimum(const Problem& problem, double slope,
                      Solution* solution) {
  double slack = problem.budget - solution->cost;
  while (slack > 0) {
    Core core(problem, slope, *solution, slack);
    core.Search();
    Solution better;
    better.choice = core.Choices();
    for (size_t g = 0; g < better.choice.size(); ++g) {
      better.cost += problem.groups[g][better.choice[g]].cost;
      better.value += problem.groups[g][better.choice[g]].value;
    }
    if (better.cost > problem.budget) {
      // Costs that aren't integers, summed in another order.
      slack -= 2 * (better.cost - problem.budget);
      continue;
    }
    const double gap = core.excess() - core.lowest_excess();
    if (better.value < solution->value) *solution = std::move(better);
    solution->gap = gap;
    return;
  }
}

}  // namespace ratequant::allocation
