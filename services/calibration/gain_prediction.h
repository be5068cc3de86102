#ifndef RATEQUANT_SERVICES_CALIBRATION_GAIN_PREDICTION_H_
#define RATEQUANT_SERVICES_CALIBRATION_GAIN_PREDICTION_H_

#include <vector>

namespace ratequant::calibration {

// What allocation gains over uniform widths when every group loses
// weight * beta^-bits (paper Theorem 3). All functions are pure; weights that
// are zero don't count.

// The gain without bounds, at any budget: the arithmetic over the geometric
// mean of the weights. At least 1; 0 when no weight is above zero.
double ArithmeticOverGeometricMean(const std::vector<double>& weights);

// The gain at an average of `code_bits`, real-valued widths kept to 1 to 8
// bits: the loss of uniform widths over that of reverse waterfilling (Theorem
// 2). 0 when no weight is above zero; 1 when beta isn't above 1, where more
// bits help nobody.
double PredictGain(const std::vector<double>& weights, double beta,
                   double code_bits);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_GAIN_PREDICTION_H_
