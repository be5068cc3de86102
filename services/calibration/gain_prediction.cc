#include "services/calibration/gain_prediction.h"

#include <algorithm>
#include <cmath>

namespace ratequant::calibration {
namespace {

constexpr double kLowestBits = 1, kHighestBits = 8;
// Halvings of the water level: far below a double's precision in bits.
constexpr int kHalvings = 60;

std::vector<double> Logarithms(const std::vector<double>& weights) {
  std::vector<double> logs;
  for (double weight : weights) {
    if (weight > 0) logs.push_back(std::log(weight));
  }
  return logs;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double Width(double log_weight, double level, double log_beta) {
  return std::clamp((log_weight - level) / log_beta, kLowestBits, kHighestBits);
}

double MeanWidth(const std::vector<double>& logs, double level,
                 double log_beta) {
  double sum = 0;
  for (double log : logs) sum += Width(log, level, log_beta);
  return sum / static_cast<double>(logs.size());
}

// The level at which widths average `code_bits`: they fall as it rises.
double FindLevel(const std::vector<double>& logs, double log_beta,
                 double code_bits) {
  const auto [least, most] = std::minmax_element(logs.begin(), logs.end());
  double low = *least - kHighestBits * log_beta;
  double high = *most - kLowestBits * log_beta;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (MeanWidth(logs, middle, log_beta) > code_bits ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

double ArithmeticOverGeometricMean(const std::vector<double>& weights) {
  const std::vector<double> logs = Logarithms(weights);
  if (logs.empty()) return 0;
  const double mean = Mean(logs);
  double sum = 0;
  for (double log : logs) sum += std::exp(log - mean);
  return sum / static_cast<double>(logs.size());
}

double PredictGain(const std::vector<double>& weights, double beta,
                   double code_bits) {
  const std::vector<double> logs = Logarithms(weights);
  if (logs.empty()) return 0;
  if (!(beta > 1)) return 1;
  const double log_beta = std::log(beta);
  const double level = FindLevel(logs, log_beta, code_bits);
  const double mean = Mean(logs);  // keeps the exponents small
  double uniform = 0, allocated = 0;
  for (double log : logs) {
    uniform += std::exp(log - mean - log_beta * code_bits);
    allocated += std::exp(log - mean - log_beta * Width(log, level, log_beta));
  }
  return std::max(1.0, uniform / allocated);
}

}  // namespace ratequant::calibration
