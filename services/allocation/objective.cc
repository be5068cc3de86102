#include "services/allocation/objective.h"

#include <algorithm>
#include <cmath>

#include "services/allocation/calibration_check.h"

namespace ratequant::allocation {
namespace {

// Paper W.14.
constexpr double kWeightCap = 5;

// w = d * g2, capped at five times the mean over every `stride`-th group from
// `first`.
void SetWeights(const v1::Calibration& calibration, int first, int stride,
                std::vector<double>* weights) {
  const double d = calibration.geometry().head_dim();
  double sum = 0;
  int count = 0;
  for (int g = first; g < calibration.groups_size(); g += stride) {
    (*weights)[g] = d * calibration.groups(g).g2();
    sum += (*weights)[g];
    ++count;
  }
  const double cap = kWeightCap * sum / count;
  for (int g = first; g < calibration.groups_size(); g += stride) {
    (*weights)[g] = std::min((*weights)[g], cap);
  }
}

}  // namespace

Objective::Objective(const v1::Calibration& calibration,
                     const v1::Policy& policy)
    : calibration_(calibration), objective_(policy.objective()) {
  if (objective_ != v1::Policy::PAPER) return;
  weights_.resize(calibration.groups_size());
  const int stride = policy.separate_key_value() ? 2 : 1;
  for (int first = 0; first < stride; ++first) {
    SetWeights(calibration, first, stride, &weights_);
  }
}

double Objective::Value(int table, int group, int width) const {
  const v1::DistortionTable& t = calibration_.tables(table);
  const int cell = group * kWidths + width - 1;
  switch (objective_) {
    case v1::Policy::PAPER: {
      const v1::CurveFit& fit = group % 2 == 0 ? t.key_fit() : t.value_fit();
      return weights_[group] * fit.alpha() * std::pow(fit.beta(), -width);
    }
    case v1::Policy::MEASURED:
      return calibration_.groups(group).g2() * t.mse(cell);
    case v1::Policy::ATTENTION_OUTPUT:
      return t.d2(cell);
    default:
      return t.c2(cell);
  }
}

}  // namespace ratequant::allocation
