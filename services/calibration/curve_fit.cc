#include "services/calibration/curve_fit.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_format.h"

namespace ratequant::calibration {
namespace {

constexpr size_t kMinPoints = 3;
// The curve of something that has no distortion still needs a base.
constexpr double kNeutralBeta = 1.0;

struct Point {
  double bits;
  double log_distortion;
};

std::vector<Point> UsablePoints(absl::Span<const int> widths,
                                absl::Span<const double> distortion) {
  std::vector<Point> points;
  for (size_t i = 0; i < std::min(widths.size(), distortion.size()); ++i) {
    if (widths[i] < kMinFittedWidth || widths[i] > kMaxFittedWidth) continue;
    if (!std::isfinite(distortion[i]) || distortion[i] <= 0) continue;
    points.push_back({double(widths[i]), std::log(distortion[i])});
  }
  return points;
}

double MaxResidual(const std::vector<Point>& points, double log_alpha,
                   double log_beta) {
  double largest = 0;
  for (const Point& p : points) {
    double residual = p.log_distortion - (log_alpha - p.bits * log_beta);
    largest = std::max(largest, std::abs(residual));
  }
  return largest;
}

// 1 - (residual sum of squares / total). A flat line that fits exactly is a
// perfect fit, not an undefined one.
double CoefficientOfDetermination(double residual, double total) {
  if (total > 0) return 1 - residual / total;
  return residual > 0 ? 0 : 1;
}

absl::optional<CurveFit> FitPoints(const std::vector<Point>& points) {
  if (points.size() < kMinPoints) return absl::nullopt;
  double mean_x = 0, mean_y = 0;
  for (const Point& p : points) {
    mean_x += p.bits / points.size();
    mean_y += p.log_distortion / points.size();
  }
  double xx = 0, xy = 0, yy = 0;
  for (const Point& p : points) {
    xx += (p.bits - mean_x) * (p.bits - mean_x);
    xy += (p.bits - mean_x) * (p.log_distortion - mean_y);
    yy += (p.log_distortion - mean_y) * (p.log_distortion - mean_y);
  }
  const double slope = xy / xx;
  const double log_alpha = mean_y - slope * mean_x;
  CurveFit fit;
  fit.alpha = std::exp(log_alpha);
  fit.beta = std::exp(-slope);
  fit.r2 = CoefficientOfDetermination(std::max(0.0, yy - slope * xy), yy);
  fit.max_residual = MaxResidual(points, log_alpha, -slope);
  return fit;
}

// The same curve with another base: alpha by least squares for that base.
void ReplaceBeta(double beta, const std::vector<Point>& points, CurveFit& fit) {
  const double log_beta = std::log(beta);
  double log_alpha = 0;
  for (const Point& p : points) {
    log_alpha += (p.log_distortion + p.bits * log_beta) / points.size();
  }
  fit.alpha = std::exp(log_alpha);
  fit.beta = beta;
  fit.max_residual = MaxResidual(points, log_alpha, log_beta);
  fit.beta_replaced = true;
}

// All curves of one tensor (K or V) under one quantizer.
class TensorFitter {
 public:
  TensorFitter(const std::string& quantizer, absl::Span<const int> widths,
               absl::Span<const double> mse, int kv_heads, int tensor)
      : quantizer_(quantizer),
        widths_(widths),
        mse_(mse),
        kv_heads_(kv_heads),
        tensor_(tensor) {}

  void Fit(TableFits& out) {
    FitGroups(out);
    const double mean_beta = MeanBeta();
    Repair(mean_beta, out);
    (tensor_ == 0 ? out.key : out.value) = FitPooled(mean_beta, out);
  }

 private:
  struct Group {
    size_t index;
    std::vector<Point> points;
    absl::optional<CurveFit> fit;
  };

  const char* TensorName() const { return tensor_ == 0 ? "K" : "V"; }

  absl::Span<const double> Row(size_t group) const {
    return mse_.subspan(group * widths_.size(), widths_.size());
  }

  void FitGroups(const TableFits& out) {
    for (size_t g = tensor_; g < out.groups.size(); g += 2) {
      std::vector<Point> points = UsablePoints(widths_, Row(g));
      absl::optional<CurveFit> fit = FitPoints(points);
      groups_.push_back({g, std::move(points), fit});
    }
  }

  double MeanBeta() const {
    double sum = 0;
    size_t count = 0;
    for (const Group& group : groups_) {
      if (!group.fit.has_value()) continue;
      sum += group.fit->beta;
      ++count;
    }
    return count == 0 ? kNeutralBeta : sum / count;
  }

  // Applies W.10 to every group and hands the results out.
  void Repair(double mean_beta, TableFits& out) {
    std::vector<size_t> replaced, absent;
    for (Group& group : groups_) {
      CurveFit& result = out.groups[group.index];
      if (!group.fit.has_value()) {
        result = {0, mean_beta, 0, 0, true};
        absent.push_back(group.index);
        continue;
      }
      result = *group.fit;
      if (result.r2 >= kMinR2) continue;
      ReplaceBeta(std::min(result.beta, mean_beta), group.points, result);
      replaced.push_back(group.index);
    }
    Warn(replaced, "fit worse than R^2 = 0.96 and got min(fit, mean) as beta",
         out);
    Warn(absent, "have no distortion to fit a curve to", out);
  }

  void Warn(const std::vector<size_t>& groups, const char* what,
            TableFits& out) const {
    if (groups.empty()) return;
    const size_t first = groups.front() / 2;
    out.warnings.push_back(
        absl::StrFormat("%s: %d of %d %s groups %s (first: layer %d, head %d).",
                        quantizer_, groups.size(), groups_.size(), TensorName(),
                        what, first / kv_heads_, first % kv_heads_));
  }

  CurveFit FitPooled(double mean_beta, TableFits& out) const {
    std::vector<double> mean(widths_.size(), 0);
    for (const Group& group : groups_) {
      absl::Span<const double> row = Row(group.index);
      for (size_t w = 0; w < mean.size(); ++w)
        mean[w] += row[w] / groups_.size();
    }
    const std::vector<Point> points = UsablePoints(widths_, mean);
    absl::optional<CurveFit> fit = FitPoints(points);
    if (!fit.has_value()) {
      out.warnings.push_back(absl::StrFormat(
          "%s: the mean distortion of %s is zero or not finite: no curve.",
          quantizer_, TensorName()));
      return {0, mean_beta, 0, 0, true};
    }
    if (fit->r2 < kMinR2) {
      const double fitted = fit->beta;
      ReplaceBeta(std::min(fitted, mean_beta), points, *fit);
      out.warnings.push_back(absl::StrFormat(
          "%s: the curve of %s fits badly (R^2 = %.4f, below 0.96): beta %.4f "
          "became %.4f.",
          quantizer_, TensorName(), fit->r2, fitted, fit->beta));
    }
    return *fit;
  }

  const std::string& quantizer_;
  const absl::Span<const int> widths_;
  const absl::Span<const double> mse_;
  const int kv_heads_;
  const size_t tensor_;
  std::vector<Group> groups_;
};

}  // namespace

absl::optional<CurveFit> FitCurve(absl::Span<const int> widths,
                                  absl::Span<const double> distortion) {
  return FitPoints(UsablePoints(widths, distortion));
}

TableFits FitTable(const std::string& quantizer, absl::Span<const int> widths,
                   absl::Span<const double> mse, int kv_heads) {
  TableFits fits;
  fits.groups.resize(widths.empty() ? 0 : mse.size() / widths.size());
  for (int tensor : {0, 1}) {
    TensorFitter(quantizer, widths, mse, kv_heads, tensor).Fit(fits);
  }
  return fits;
}

}  // namespace ratequant::calibration
