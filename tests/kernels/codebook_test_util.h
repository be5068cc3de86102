#ifndef RATEQUANT_TESTS_KERNELS_CODEBOOK_TEST_UTIL_H_
#define RATEQUANT_TESTS_KERNELS_CODEBOOK_TEST_UTIL_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/quantizers/codebook.h"

namespace ratequant::kv {

// The density of one coordinate of a uniform unit vector in R^dim, times
// sqrt(dim), not normalised.
inline double Density(double z, int dim) {
  return std::pow(std::max(0.0, 1.0 - z * z / dim), 0.5 * (dim - 3));
}

struct CellSums {
  double mass = 0, first = 0, second = 0;
};

// Sums over [low, high] by the midpoint rule, fine enough for 7 digits.
inline CellSums Integrate(int dim, double low, double high) {
  CellSums sums;
  const int steps = 4000;
  const double step = (high - low) / steps;
  for (int i = 0; i < steps; ++i) {
    const double z = low + (i + 0.5) * step;
    const double mass = Density(z, dim) * step;
    sums.mass += mass;
    sums.first += mass * z;
    sums.second += mass * z * z;
  }
  return sums;
}

inline std::vector<CellSums> Cells(const Codebook& codebook) {
  const double edge = std::sqrt(double(codebook.dim));
  std::vector<CellSums> cells;
  for (size_t i = 0; i < codebook.levels.size(); ++i) {
    const double low = i == 0 ? -edge : codebook.thresholds[i - 1];
    const double high =
        i + 1 == codebook.levels.size() ? edge : codebook.thresholds[i];
    cells.push_back(Integrate(codebook.dim, low, high));
  }
  return cells;
}

// Mean squared error at unit variance.
inline double MeanSquaredError(const Codebook& codebook) {
  double error = 0, mass = 0;
  const std::vector<CellSums> cells = Cells(codebook);
  for (size_t i = 0; i < cells.size(); ++i) {
    const double level = codebook.levels[i];
    error += cells[i].second - 2 * level * cells[i].first +
             level * level * cells[i].mass;
    mass += cells[i].mass;
  }
  return error / mass;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_CODEBOOK_TEST_UTIL_H_
