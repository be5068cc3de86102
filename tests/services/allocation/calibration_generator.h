#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_

#include <cstdint>
#include <string>
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
  uint32_t query_heads = 0;  // 0: three for each KV head
  uint32_t head_dim = 64;
  uint32_t page_tokens = 32;  // a multiple of kivi's group size
  uint32_t sink_tokens = 4;
  std::vector<v1::Quantizer> quantizers = AllQuantizers();
  // Different seeds give different numbers, the same seed the same.
  uint32_t seed = 1;
};

// A calibration with the shape and the habits of a measured one: sensitivities
// spread over orders of magnitude, K above V; curves near alpha * beta^-b with
// the betas measured on SmolLM2, min/max quantizers far worse at 1 bit; noise
// in every entry; the packed format's own bytes. Valid, without a name.
v1::Calibration MakeCalibration(const CalibrationSpec& spec = {});

// A model people run, and the shape of its KV cache.
struct KnownModel {
  const char* id;
  uint32_t layers, kv_heads, query_heads, head_dim;
};

// From 52 to 3200 groups, head_dim 64 to 256.
const std::vector<KnownModel>& KnownModels();

// A model's calibration under every quantizer that takes its head_dim.
CalibrationSpec SpecOf(const KnownModel& model, uint32_t seed);

// The i-th model of a fleet as large as one likes, "Qwen3-8B.ft-41": a
// fine-tune of one of KnownModels with numbers of its own.
struct FleetModel {
  std::string id;
  CalibrationSpec spec;
};
FleetModel MakeFleetModel(uint32_t i);

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_CALIBRATION_GENERATOR_H_
