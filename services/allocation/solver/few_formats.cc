#include "services/allocation/solver/few_formats.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

namespace ratequant::allocation {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Relative difference below which two sums count as equal.
constexpr double kTolerance = 1e-12;
// Steps of the multiplier; it needs about ten.
constexpr int kMaxSteps = 200;
// What is listed for one layer at most.
constexpr size_t kMaxOutcomes = 1 << 15;

using Formats = std::vector<int>;  // ascending, into Layer::choice

// What a selection costs and is worth.
struct Point {
  double cost = 0;
  double value = 0;
};

// How much cost and value count.
struct Prices {
  double cost = 0;
  double value = 0;

  double Of(const Choice& choice) const {
    return (cost == 0 ? 0 : cost * choice.cost) +
           (value == 0 ? 0 : value * choice.value);
  }
};

// The sets of formats one layer may use.
class Layer {
 public:
  Layer(const FormatProblem& problem, int first, int last)
      : problem_(problem), first_(first), last_(last) {
    int formats = 0;
    for (int g = first; g < last; ++g) {
      for (int f : problem.format[g]) formats = std::max(formats, f + 1);
    }
    choice_.assign(formats, std::vector<int>(last - first, -1));
    for (int g = first; g < last; ++g) {
      for (size_t j = 0; j < problem.format[g].size(); ++j) {
        choice_[problem.format[g][j]][g - first] = static_cast<int>(j);
      }
    }
    most_ = std::min(problem.most, formats);
  }

  int first() const { return first_; }
  int last() const { return last_; }

  // The choice of group `g` that has a format; -1 when none.
  int ChoiceIn(int g, int format) const { return choice_[format][g - first_]; }

  // Calls `visit` with every set of formats whose price, the sum over groups of
  // the cheapest in the set, is at most `limit()`, and with that price.
  void ForEach(const Prices& prices, const std::function<double()>& limit,
               const std::function<void(const Formats&, double)>& visit) const {
    const Table table = PriceTable(prices);
    Formats chosen;
    Visit(table, limit, visit, std::vector<double>(last_ - first_, kInfinity),
          &chosen);
  }

  // The set of least price; `price` is infinite when the layer has none.
  Formats Best(const Prices& prices, double* price) const {
    Formats best;
    *price = kInfinity;
    ForEach(
        prices, [price] { return *price; },
        [&](const Formats& formats, double p) {
          if (p >= *price) return;
          *price = p;
          best = formats;
        });
    return best;
  }

  // What the cheapest choices in a set come to.
  Point PointAt(const Prices& prices, const Formats& formats) const {
    Point point;
    for (int g = first_; g < last_; ++g) {
      const Choice* best = nullptr;
      for (int f : formats) {
        const int j = ChoiceIn(g, f);
        if (j < 0) continue;
        const Choice& choice = problem_.problem.groups[g][j];
        const auto key = [&prices](const Choice& c) {
          return std::pair(prices.Of(c), c.cost);
        };
        if (best == nullptr || key(choice) < key(*best)) best = &choice;
      }
      point.cost += best->cost;
      point.value += best->value;
    }
    return point;
  }

 private:
  struct Table {
    std::vector<std::vector<double>> price;  // [formats][groups]
    // The least over this format and those after it.
    std::vector<std::vector<double>> least;
  };

  Table PriceTable(const Prices& prices) const {
    Table table;
    table.price.assign(choice_.size(), {});
    for (size_t f = 0; f < choice_.size(); ++f) {
      for (int g = first_; g < last_; ++g) {
        const int j = choice_[f][g - first_];
        table.price[f].push_back(
            j < 0 ? kInfinity : prices.Of(problem_.problem.groups[g][j]));
      }
    }
    table.least = table.price;
    for (size_t f = choice_.size(); f-- > 1;) {
      for (size_t g = 0; g < table.least[f].size(); ++g) {
        table.least[f - 1][g] =
            std::min(table.least[f - 1][g], table.least[f][g]);
      }
    }
    return table;
  }

  static double SumOfLeast(const std::vector<double>& a,
                           const std::vector<double>& b) {
    double sum = 0;
    for (size_t g = 0; g < a.size(); ++g) sum += std::min(a[g], b[g]);
    return sum;
  }

  // Goes on from the formats in `chosen`, whose least prices are `now`.
  void Visit(const Table& table, const std::function<double()>& limit,
             const std::function<void(const Formats&, double)>& visit,
             const std::vector<double>& now, Formats* chosen) const {
    const int formats = static_cast<int>(choice_.size());
    const int missing = most_ - static_cast<int>(chosen->size());
    for (int f = chosen->empty() ? 0 : chosen->back() + 1;
         f + missing <= formats; ++f) {
      // None from here on can do.
      if (SumOfLeast(now, table.least[f]) > limit()) return;
      chosen->push_back(f);
      if (missing == 1) {
        const double price = SumOfLeast(now, table.price[f]);
        if (price < kInfinity && price <= limit()) visit(*chosen, price);
      } else {
        std::vector<double> next = now;
        for (size_t g = 0; g < next.size(); ++g) {
          next[g] = std::min(next[g], table.price[f][g]);
        }
        Visit(table, limit, visit, next, chosen);
      }
      chosen->pop_back();
    }
  }

  const FormatProblem& problem_;
  const int first_, last_;
  int most_ = 0;
  std::vector<std::vector<int>> choice_;  // [formats][groups of the layer]
};

std::vector<Layer> MakeLayers(const FormatProblem& problem) {
  std::vector<Layer> layers;
  const int groups = static_cast<int>(problem.layer.size());
  for (int first = 0; first < groups;) {
    int last = first + 1;
    while (last < groups && problem.layer[last] == problem.layer[first]) ++last;
    layers.emplace_back(problem, first, last);
    first = last;
  }
  return layers;
}

// A set of formats for every layer, and what they come to at some prices.
struct Selection {
  std::vector<Formats> formats;
  std::vector<double> prices;
  Point point;
};

// What one layer can be, and the formats it takes.
struct Outcome {
  Point point;
  double excess = 0;  // over the layer's least price
  int formats = 0;
};

class Solver {
 public:
  explicit Solver(const FormatProblem& problem)
      : problem_(problem),
        budget_(problem.problem.budget),
        layers_(MakeLayers(problem)) {}

  std::optional<Solution> Solve() {
    const Selection cheapest = Select({1, 0});
    if (cheapest.point.cost > budget_) return std::nullopt;
    const Selection best = Select({0, 1});
    if (best.point.cost <= budget_) return Within(best.formats);
    const double multiplier = FindMultiplier(cheapest, best);
    if (solution_.value - bound_ <= kTolerance * solution_.value) {
      return solution_;
    }
    solution_.gap = solution_.value - bound_;
    SearchOutcomes({multiplier, 1});
    return solution_;
  }

 private:
  Selection Select(const Prices& prices) const {
    Selection selection;
    for (const Layer& layer : layers_) {
      double price = 0;
      selection.formats.push_back(layer.Best(prices, &price));
      selection.prices.push_back(price);
      if (price == kInfinity) {
        selection.point.cost = kInfinity;
        return selection;
      }
      const Point point = layer.PointAt(prices, selection.formats.back());
      selection.point.cost += point.cost;
      selection.point.value += point.value;
    }
    return selection;
  }

  // Raises the linear bound to its maximum, from a selection within the budget
  // and one above it: the multiplier at which they are worth the same is tried
  // until nothing else is worth more there.
  double FindMultiplier(Selection within, Selection above) {
    double multiplier = 0;
    for (int step = 0; step < kMaxSteps; ++step) {
      multiplier = (within.point.value - above.point.value) /
                   (above.point.cost - within.point.cost);
      const Prices prices = {multiplier, 1};
      Selection next = Select(prices);
      best_prices_ = next.prices;
      const double price =
          std::accumulate(next.prices.begin(), next.prices.end(), 0.0);
      bound_ = price - multiplier * budget_;
      const double same = within.point.value + multiplier * within.point.cost;
      if (price >= same * (1 - kTolerance)) break;
      (next.point.cost <= budget_ ? within : above) = std::move(next);
    }
    solution_ = *Within(within.formats);
    Improve(above.formats);
    return multiplier;
  }

  // The best solution whose layers use these formats; nullopt when none fits.
  std::optional<Solution> Within(const std::vector<Formats>& formats) const {
    Problem problem;
    problem.budget = budget_;
    std::vector<std::vector<int>> choice;
    for (size_t l = 0; l < layers_.size(); ++l) {
      for (int g = layers_[l].first(); g < layers_[l].last(); ++g) {
        problem.groups.emplace_back();
        choice.emplace_back();
        for (int f : formats[l]) {
          const int j = layers_[l].ChoiceIn(g, f);
          if (j < 0) continue;
          problem.groups.back().push_back(problem_.problem.groups[g][j]);
          choice.back().push_back(j);
        }
      }
    }
    std::optional<Solution> solution = SolveKnapsack(problem);
    if (!solution.has_value()) return solution;
    for (size_t g = 0; g < choice.size(); ++g) {
      solution->choice[g] = choice[g][solution->choice[g]];
    }
    return solution;
  }

  void Improve(const std::vector<Formats>& formats) {
    std::optional<Solution> other = Within(formats);
    if (other.has_value() && other->value < solution_.value) {
      solution_ = *std::move(other);
    }
  }

  // Lists what can be part of a better solution, and takes the best of it.
  void SearchOutcomes(const Prices& prices) {
    Problem problem;
    problem.budget = budget_;
    std::vector<std::vector<Formats>> sets(layers_.size());
    std::vector<std::vector<Outcome>> outcomes;
    for (size_t l = 0; l < layers_.size(); ++l) {
      outcomes.push_back(Outcomes(l, prices, &sets[l]));
      if (outcomes.back().size() > kMaxOutcomes) return;
      problem.groups.emplace_back();
      for (const Outcome& outcome : outcomes.back()) {
        problem.groups.back().push_back(
            {outcome.point.cost, outcome.point.value});
      }
    }
    const std::optional<Solution> best = SolveKnapsack(problem);
    if (!best.has_value()) return;
    std::vector<Formats> formats;
    for (size_t l = 0; l < layers_.size(); ++l) {
      formats.push_back(sets[l][outcomes[l][best->choice[l]].formats]);
    }
    Improve(formats);
    solution_.gap = best->gap;
  }

  // What layer `l` can be, without what costs more and is worth no more than
  // something else; more than kMaxOutcomes when the list got too long.
  std::vector<Outcome> Outcomes(size_t l, const Prices& prices,
                                std::vector<Formats>* sets) const {
    const Layer& layer = layers_[l];
    const double least = best_prices_[l];
    const double most = solution_.gap + kTolerance * solution_.value;
    std::vector<double> starts;
    layer.ForEach(
        prices, [&] { return least + most; },
        [&](const Formats& formats, double price) {
          sets->push_back(formats);
          starts.push_back(std::max(0.0, price - least));
        });
    std::vector<Outcome> all;
    for (size_t s = 0; s < sets->size(); ++s) {
      std::vector<Outcome> some = {{{}, starts[s], static_cast<int>(s)}};
      for (int g = layer.first(); g < layer.last(); ++g) {
        some = WithGroup(layer, g, prices, (*sets)[s], most, some);
        if (some.size() > kMaxOutcomes) return some;
      }
      all.insert(all.end(), some.begin(), some.end());
      if (all.size() > kMaxOutcomes) {
        RemoveDominated(&all);
        if (all.size() > kMaxOutcomes) return all;
      }
    }
    RemoveDominated(&all);
    return all;
  }

  std::vector<Outcome> WithGroup(const Layer& layer, int g,
                                 const Prices& prices, const Formats& formats,
                                 double most,
                                 const std::vector<Outcome>& before) const {
    const std::vector<Choice>& choices = problem_.problem.groups[g];
    double least = kInfinity;
    for (int f : formats) {
      const int j = layer.ChoiceIn(g, f);
      if (j >= 0) least = std::min(least, prices.Of(choices[j]));
    }
    std::vector<Outcome> after;
    for (int f : formats) {
      const int j = layer.ChoiceIn(g, f);
      if (j < 0) continue;
      const double excess = std::max(0.0, prices.Of(choices[j]) - least);
      for (const Outcome& outcome : before) {
        if (outcome.excess + excess > most) continue;
        after.push_back({{outcome.point.cost + choices[j].cost,
                          outcome.point.value + choices[j].value},
                         outcome.excess + excess,
                         outcome.formats});
      }
    }
    RemoveDominated(&after);
    return after;
  }

  static void RemoveDominated(std::vector<Outcome>* outcomes) {
    std::stable_sort(outcomes->begin(), outcomes->end(),
                     [](const Outcome& a, const Outcome& b) {
                       return std::pair(a.point.cost, a.point.value) <
                              std::pair(b.point.cost, b.point.value);
                     });
    double best = kInfinity;
    const auto dominated = [&best](const Outcome& outcome) {
      if (outcome.point.value >= best) return true;
      best = outcome.point.value;
      return false;
    };
    outcomes->erase(
        std::remove_if(outcomes->begin(), outcomes->end(), dominated),
        outcomes->end());
  }

  const FormatProblem& problem_;
  const double budget_;
  const std::vector<Layer> layers_;
  std::vector<double> best_prices_;  // [layers], at the multiplier
  double bound_ = 0;                 // no solution has a lower value
  Solution solution_;                // the best one known
};

}  // namespace

std::vector<double> LowestLayerCosts(const FormatProblem& problem) {
  std::vector<double> costs;
  for (const Layer& layer : MakeLayers(problem)) {
    layer.Best({1, 0}, &costs.emplace_back());
  }
  return costs;
}

std::optional<Solution> SolveFewFormats(const FormatProblem& problem) {
  return Solver(problem).Solve();
}

}  // namespace ratequant::allocation
