#include "kernels/quantizers/codebook.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "kernels/quantizers/codebook_cache.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/rotation.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv {
namespace {

// Only + - * / and sqrt are used below, all exact to the last bit by IEEE 754,
// so that every machine computes the same codebook.

double Power(double base, int exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

// Mass and first moment of a cell.
struct Moments {
  double mass = 0;
  double first = 0;
};

class Density {
 public:
  explicit Density(int dim) : dim_(dim), edge_(std::sqrt(double(dim))) {}

  double edge() const { return edge_; }

  // Not normalised. The exponent (dim - 3) / 2 is a half-integer.
  double At(double z) const {
    const double u = std::max(0.0, 1.0 - z * z / dim_);
    return Power(u, (dim_ - 4) / 2) * std::sqrt(u);
  }

  // Composite 8-point Gauss-Legendre.
  Moments Integrate(double low, double high) const {
    constexpr std::array<double, 4> kNode = {
        0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
        0.9602898564975363};
    constexpr std::array<double, 4> kWeight = {
        0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
        0.1012285362903763};
    Moments sum;
    const int panels = 1 + static_cast<int>((high - low) / 0.25);
    const double half = 0.5 * (high - low) / panels;
    for (int panel = 0; panel < panels; ++panel) {
      const double middle = low + half * (2 * panel + 1);
      for (size_t i = 0; i < kNode.size(); ++i) {
        for (const double z :
             {middle - half * kNode[i], middle + half * kNode[i]}) {
          const double mass = kWeight[i] * half * At(z);
          sum.mass += mass;
          sum.first += mass * z;
        }
      }
    }
    return sum;
  }

 private:
  double dim_;
  double edge_;
};

// The positive levels at the start: quantiles of the density's fourth root,
// near the asymptotic optimum (its cube root).
std::vector<double> InitialLevels(const Density& density, int count) {
  constexpr int kGrid = 2048;
  const double step = density.edge() / kGrid;
  std::vector<double> cumulative(kGrid + 1, 0.0);
  for (int i = 0; i < kGrid; ++i) {
    const double f = density.At(step * (i + 0.5));
    cumulative[i + 1] = cumulative[i] + std::sqrt(std::sqrt(f));
  }
  std::vector<double> levels(count);
  int cell = 0;
  for (int k = 0; k < count; ++k) {
    const double target = cumulative[kGrid] * (k + 0.5) / count;
    while (cumulative[cell + 1] < target) ++cell;
    const double part =
        (target - cumulative[cell]) / (cumulative[cell + 1] - cumulative[cell]);
    levels[k] = step * (cell + part);
  }
  return levels;
}

// Edges of the cells of the positive levels: 0, midpoints, the support's edge.
std::vector<double> CellEdges(const std::vector<double>& levels, double edge) {
  std::vector<double> edges(levels.size() + 1);
  edges.front() = 0.0;
  edges.back() = edge;
  for (size_t i = 1; i < levels.size(); ++i) {
    edges[i] = 0.5 * (levels[i - 1] + levels[i]);
  }
  return edges;
}

// Solves the tridiagonal system in place (Thomas); the result is in `right`.
void SolveTridiagonal(const std::vector<double>& lower,
                      std::vector<double>& diagonal,
                      const std::vector<double>& upper,
                      std::vector<double>& right) {
  const size_t n = right.size();
  for (size_t i = 1; i < n; ++i) {
    const double factor = lower[i] / diagonal[i - 1];
    diagonal[i] -= factor * upper[i - 1];
    right[i] -= factor * right[i - 1];
  }
  for (size_t i = n; i-- > 0;) {
    if (i + 1 < n) right[i] -= upper[i] * right[i + 1];
    right[i] /= diagonal[i];
  }
}

// One Newton step on level_i - centroid_i(levels) = 0. Returns the largest
// change. The step is shortened until the levels stay ordered.
double NewtonStep(const Density& density, std::vector<double>& levels) {
  const size_t n = levels.size();
  const std::vector<double> edges = CellEdges(levels, density.edge());
  std::vector<double> lower(n, 0.0), diagonal(n), upper(n, 0.0), step(n);
  for (size_t i = 0; i < n; ++i) {
    const Moments cell = density.Integrate(edges[i], edges[i + 1]);
    const double centroid = cell.first / cell.mass;
    // How the centroid moves with the cell's two edges; the outermost edges
    // don't move.
    const double by_low =
        i == 0 ? 0.0 : density.At(edges[i]) * (centroid - edges[i]) / cell.mass;
    const double by_high =
        i + 1 == n
            ? 0.0
            : density.At(edges[i + 1]) * (edges[i + 1] - centroid) / cell.mass;
    lower[i] = -0.5 * by_low;
    upper[i] = -0.5 * by_high;
    diagonal[i] = 1.0 - 0.5 * by_low - 0.5 * by_high;
    step[i] = centroid - levels[i];
  }
  SolveTridiagonal(lower, diagonal, upper, step);
  for (double length = 1.0;; length *= 0.5) {
    std::vector<double> next(n);
    double previous = 0.0;
    bool ordered = true;
    for (size_t i = 0; i < n; ++i) {
      next[i] = levels[i] + length * step[i];
      ordered = ordered && next[i] > previous && next[i] < density.edge();
      previous = next[i];
    }
    if (!ordered) continue;
    levels = std::move(next);
    break;
  }
  double change = 0.0;
  for (const double s : step) change = std::max(change, std::fabs(s));
  return change;
}

// One Lloyd step: every level to the centroid of its cell.
void LloydStep(const Density& density, std::vector<double>& levels) {
  const std::vector<double> edges = CellEdges(levels, density.edge());
  for (size_t i = 0; i < levels.size(); ++i) {
    const Moments cell = density.Integrate(edges[i], edges[i + 1]);
    levels[i] = cell.first / cell.mass;
  }
}

Codebook ComputeCodebook(int dim, int width) {
  const Density density(dim);
  std::vector<double> positive = InitialLevels(density, 1 << (width - 1));
  // Lloyd pulls the guess into Newton's reach; the density is log-concave, so
  // the fixed point is unique.
  for (int i = 0; i < 8; ++i) LloydStep(density, positive);
  for (int i = 0; i < 60 && NewtonStep(density, positive) > 1e-12; ++i) {
  }
  std::vector<float> levels;
  for (size_t i = positive.size(); i-- > 0;) {
    levels.push_back(-RoundToHalf(static_cast<float>(positive[i])));
  }
  for (const double level : positive) {
    levels.push_back(RoundToHalf(static_cast<float>(level)));
  }
  return MakeCodebook(dim, width, std::move(levels));
}

// Puts the sorted thresholds into the subtree of `node`, in order; returns the
// next threshold to put.
size_t FillTree(const std::vector<float>& thresholds, size_t next, size_t node,
                std::vector<float>& tree) {
  if (node > thresholds.size()) return next;
  next = FillTree(thresholds, next, 2 * node, tree);
  tree[node] = thresholds[next];
  return FillTree(thresholds, next + 1, 2 * node + 1, tree);
}

}  // namespace

Codebook MakeCodebook(int dim, int width, std::vector<float> levels) {
  Codebook codebook{dim, width, std::move(levels), {}, {}, {}};
  for (size_t i = 0; i < codebook.levels.size(); ++i) {
    codebook.units.push_back(codebook.levels[i] * InverseSqrtOfDim(dim));
    if (i == 0) continue;
    codebook.thresholds.push_back(
        0.5f * (codebook.levels[i - 1] + codebook.levels[i]));
  }
  const size_t entries =
      std::max<size_t>(codebook.levels.size(), Codebook::kMinEntries);
  codebook.units.resize(entries, 0.0f);
  codebook.tree.resize(entries, 0.0f);
  FillTree(codebook.thresholds, 0, 1, codebook.tree);
  return codebook;
}

const Codebook& GetCodebook(int dim, int width) {
  static CodebookCache<kMaxCodeWidth> cache(&ComputeCodebook);
  return cache.Get(dim, width);
}

}  // namespace ratequant::kv
