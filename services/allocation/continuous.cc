#include "services/allocation/continuous.h"

#include <array>
#include <cmath>
#include <optional>

#include "services/allocation/solver/waterfilling.h"

namespace ratequant::allocation {
namespace {

// The widths curves are fitted over (paper section 3.4).
constexpr int kFitLower = 2;
constexpr int kFitWidths = 5;
constexpr double kMeanWidth = 4;
// Sum over the fitted widths of (b - mean)^2.
constexpr double kSquares = 10;

using LogCurve = std::array<double, kFitWidths>;

// ln E at the fitted widths; nullopt when E vanishes at one.
std::optional<LogCurve> GetLogCurve(const Objective& objective, int table,
                                    int group) {
  LogCurve curve;
  for (int i = 0; i < kFitWidths; ++i) {
    const double value = objective.Value(table, group, kFitLower + i);
    if (!(value > 0)) return std::nullopt;
    curve[i] = std::log(value);
  }
  return curve;
}

double Mean(const LogCurve& curve) {
  double sum = 0;
  for (double value : curve) sum += value;
  return sum / kFitWidths;
}

// -d ln E / d b by least squares.
double Decay(const LogCurve& curve) {
  double product = 0;
  for (int i = 0; i < kFitWidths; ++i) {
    product += (kFitLower + i - kMeanWidth) * curve[i];
  }
  return -product / kSquares;
}

// Curves of every second group from `first`.
void FitTensor(const Objective& objective, int table, int first,
               std::vector<ExponentialCurve>* curves) {
  std::vector<std::optional<LogCurve>> logs(curves->size());
  double decay = 0;
  int count = 0;
  for (size_t g = first; g < curves->size(); g += 2) {
    logs[g] = GetLogCurve(objective, table, static_cast<int>(g));
    if (!logs[g].has_value()) continue;
    decay += Decay(*logs[g]);
    ++count;
  }
  if (count == 0) return;
  decay /= count;
  for (size_t g = first; g < curves->size(); g += 2) {
    if (!logs[g].has_value()) continue;
    (*curves)[g].beta = std::exp(decay);
    (*curves)[g].scale = std::exp(Mean(*logs[g]) + kMeanWidth * decay);
  }
}

}  // namespace

std::vector<double> ContinuousWidths(const Objective& objective, int table,
                                     int groups, const WidthBounds& bounds,
                                     double average, bool separate) {
  std::vector<ExponentialCurve> curves(groups);
  for (int first : {0, 1}) FitTensor(objective, table, first, &curves);
  if (!separate) {
    return FillWater(curves, average * groups, bounds.lower, bounds.upper);
  }
  std::vector<double> widths(groups);
  for (int first : {0, 1}) {
    std::vector<ExponentialCurve> half;
    for (int g = first; g < groups; g += 2) half.push_back(curves[g]);
    const std::vector<double> filled =
        FillWater(half, average * (groups / 2), bounds.lower, bounds.upper);
    for (int i = 0; i < groups / 2; ++i) widths[2 * i + first] = filled[i];
  }
  return widths;
}

}  // namespace ratequant::allocation
