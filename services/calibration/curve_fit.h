#ifndef RATEQUANT_SERVICES_CALIBRATION_CURVE_FIT_H_
#define RATEQUANT_SERVICES_CALIBRATION_CURVE_FIT_H_

#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"

namespace ratequant::calibration {

// D(b) = alpha * beta^-b, b in bits (paper section 3.4).
struct CurveFit {
  double alpha = 0;
  double beta = 0;
  double r2 = 0;            // of ln D on b, before any replacement
  double max_residual = 0;  // largest |ln D - ln curve|, after replacement
  bool beta_replaced = false;
};

// Widths that curves are fitted over, inclusive. Narrower and wider codes leave
// the exponential law (1 bit by far), so they never enter a fit.
inline constexpr int kMinFittedWidth = 2;
inline constexpr int kMaxFittedWidth = 6;

// Below this a fit is not trusted (paper W.10).
inline constexpr double kMinR2 = 0.96;

// Least squares of ln D on b over the widths from 2 to 6. `distortion` has one
// entry per width. Entries that are zero, negative or not finite have no
// logarithm and are left out; with fewer than 3 left there is no curve and the
// result is empty. Pure.
absl::optional<CurveFit> FitCurve(absl::Span<const int> widths,
                                  absl::Span<const double> distortion);

// The curves of one quantizer.
struct TableFits {
  CurveFit key;                       // of the mean over all K groups
  CurveFit value;                     // of the mean over all V groups
  std::vector<CurveFit> groups;       // [groups]
  std::vector<std::string> warnings;  // one sentence each
};

// Fits the pooled curve of K and of V and every group's own. `mse` is
// [groups][widths], groups in API order (layer, head, K before V); `quantizer`
// names the quantizer in warnings.
//
// Where R^2 < 0.96, beta becomes min(fit, mean beta of the tensor's groups) and
// alpha is refitted with that beta (paper W.10). A group without a curve (its
// distortion is zero) gets alpha 0 and the mean beta. Both raise
// `beta_replaced` and a warning. Pure.
TableFits FitTable(const std::string& quantizer, absl::Span<const int> widths,
                   absl::Span<const double> mse, int kv_heads);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CURVE_FIT_H_
