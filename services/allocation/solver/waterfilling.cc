#include "services/allocation/solver/waterfilling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace ratequant::allocation {
namespace {

// A group of positive scale between its bounds: b = (level - nu) / rate, where
// nu is the logarithm of the common marginal gain.
struct Line {
  size_t group;
  double level;  // ln(scale * ln beta)
  double rate;   // ln beta
};

double WidthAt(const Line& line, double nu, double lower, double upper) {
  return std::clamp((line.level - nu) / line.rate, lower, upper);
}

double SumAt(const std::vector<Line>& lines, double nu, double lower,
             double upper) {
  double sum = 0;
  for (const Line& line : lines) sum += WidthAt(line, nu, lower, upper);
  return sum;
}

// The sum of widths falls with nu, and is linear between the values of nu at
// which a group meets a bound: find the two that enclose `total`, then solve.
double SolveMultiplier(const std::vector<Line>& lines, double total,
                       double lower, double upper) {
  std::vector<double> nus;
  nus.reserve(2 * lines.size());
  for (const Line& line : lines) {
    nus.push_back(line.level - line.rate * lower);
    nus.push_back(line.level - line.rate * upper);
  }
  std::sort(nus.begin(), nus.end());
  // First breakpoint at which the sum is no longer above the total.
  size_t low = 0, high = nus.size() - 1;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (SumAt(lines, nus[middle], lower, upper) > total) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return nus.front();
  const double left = nus[low - 1], right = nus[low];
  // Between them a group either is at a bound or follows its line.
  double fixed = 0, offset = 0, slope = 0;
  const double middle = left + (right - left) / 2;
  for (const Line& line : lines) {
    const double width = (line.level - middle) / line.rate;
    if (width <= lower || width >= upper) {
      fixed += std::clamp(width, lower, upper);
    } else {
      offset += line.level / line.rate;
      slope += 1 / line.rate;
    }
  }
  if (slope == 0) return right;
  return std::clamp((fixed + offset - total) / slope, left, right);
}

}  // namespace

std::vector<double> FillWater(const std::vector<ExponentialCurve>& curves,
                              double total, double lower, double upper) {
  std::vector<double> widths(curves.size(), lower);
  std::vector<Line> lines;
  for (size_t g = 0; g < curves.size(); ++g) {
    const double rate = std::log(curves[g].beta);
    if (curves[g].scale > 0 && rate > 0) {
      lines.push_back({g, std::log(curves[g].scale * rate), rate});
    }
  }
  const size_t idle = curves.size() - lines.size();
  const double left = total - lower * static_cast<double>(idle);
  const double most = upper * static_cast<double>(lines.size());
  const double least = lower * static_cast<double>(lines.size());
  if (left >= most) {
    for (const Line& line : lines) widths[line.group] = upper;
  } else if (left > least) {
    const double nu = SolveMultiplier(lines, left, lower, upper);
    for (const Line& line : lines) {
      widths[line.group] = WidthAt(line, nu, lower, upper);
    }
  }
  if (left > most && idle > 0) {
    const double spare =
        std::min(upper, lower + (left - most) / static_cast<double>(idle));
    for (size_t g = 0; g < curves.size(); ++g) {
      if (!(curves[g].scale > 0) || !(curves[g].beta > 1)) widths[g] = spare;
    }
  }
  return widths;
}

}  // namespace ratequant::allocation
