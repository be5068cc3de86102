#ifndef RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CHECK_H_
#define RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CHECK_H_

#include <string>
#include <vector>

#include "ratequant/kv/tensor.h"

// The sweep's kernels against scalar code, in plain C++: through the
// CUDA-on-CPU shim, and in tests/gpu on machines that have nothing but the
// toolkit.

namespace ratequant::kv::cuda {

// Two heads of 64 tokens.
struct SweepCase {
  std::string name;
  int head_dim = 0;
  Tensor tensor = Tensor::kKey;
  DType dtype = DType::kFloat32;
  int sink_tokens = 3;
};

std::vector<SweepCase> SweepCases();

// Sweeps twice. "" when the sums are within what distortion.h promises, and the
// same bits both times; else what differs first.
std::string CheckSweep(const SweepCase& sweep_case);

// NaNs in many rows. "" when the first is reported and nothing is added.
std::string CheckSweepFaults();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CHECK_H_
