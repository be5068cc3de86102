#ifndef RATEQUANT_SERVICES_ALLOCATION_OBJECTIVE_H_
#define RATEQUANT_SERVICES_ALLOCATION_OBJECTIVE_H_

#include <vector>

#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/calibration.pb.h"

namespace ratequant::allocation {

// What a group loses: E_g(table, width), the quantity a policy minimises in
// sum. Keeps a reference to the calibration. Thread-safe.
class Objective {
 public:
  // `policy` names the objective; with PAPER, `separate_key_value` says over
  // which groups the weights' cap of five times their mean is taken (paper
  // W.14).
  Objective(const v1::Calibration& calibration, const v1::Policy& policy);

  // E of group `group` (odd: V) at `width` bits, 1 to 8, under the quantizer of
  // `calibration.tables(table)`.
  //   PAPER           w * alpha * beta^-b, the tensor's pooled fit
  //   MEASURED        g2 * mse(b)
  //   LOSS_PROJECTED  c2(b)
  //   ATTENTION_OUTPUT  d2(b), which the calibration must have
  double Value(int table, int group, int width) const;

 private:
  const v1::Calibration& calibration_;
  const v1::Policy::Objective objective_;
  std::vector<double> weights_;  // [groups], PAPER only
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_OBJECTIVE_H_
