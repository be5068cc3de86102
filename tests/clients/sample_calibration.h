#ifndef RATEQUANT_TESTS_CLIENTS_SAMPLE_CALIBRATION_H_
#define RATEQUANT_TESTS_CLIENTS_SAMPLE_CALIBRATION_H_

#include <string>
#include <vector>

#include "ratequant/v1/calibration.pb.h"

namespace ratequant::testing {

// A calibration of a model with `layers` layers of 2 KV heads and head_dim 64,
// under `quantizers`, 4 sink tokens: smooth curves (beta 4.6 for kivi and
// quarot, 3.7 for turboquant), groups whose sensitivity spreads over two orders
// of magnitude, K worse than V, the last layer's V worst. `seed` varies it.
v1::Calibration SampleCalibration(const std::vector<std::string>& quantizers,
                                  int layers = 6, int seed = 1);

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_CLIENTS_SAMPLE_CALIBRATION_H_
