#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_

#include <cstdint>
#include <vector>

#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/quantizer.pb.h"

namespace ratequant::testing {

// A canonical quantizer with default parameters.
v1::Quantizer DefaultQuantizer(v1::Quantizer::Kind kind);

// rtn, kivi, quarot and turboquant with default parameters.
std::vector<v1::Quantizer> AllQuantizers();

struct CalibrationSpec {
  uint32_t layers = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 64;
  uint32_t sink_tokens = 4;
  std::vector<v1::Quantizer> quantizers = AllQuantizers();
  // Different seeds give different numbers, the same seed the same.
  uint32_t seed = 1;
};

// A calibration with the shape and the habits of a measured one: sensitivities
// spread over orders of magnitude, K above V; curves near alpha * beta^-b with
// the betas measured on SmolLM2, min/max quantizers far worse at 1 bit; noise
// in every entry; bytes as a packed format has them. Valid, without a name.
v1::Calibration MakeCalibration(const CalibrationSpec& spec = {});

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_
