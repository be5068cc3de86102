#ifndef RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CASES_H_
#define RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CASES_H_

#include <string>
#include <vector>

#include "ratequant/kv/distortion.h"

// Captures to sweep, and comparisons of what comes out, for the tests of every
// backend.

namespace ratequant::kv {

// What a sweep runs on.
struct SweepTarget {
  std::string name;
  Backend backend = Backend::kSimd;
  Device device = {};
};

// Those that the test's program has; each program defines it.
std::vector<SweepTarget> SweepTargets();

// One Add call: values and gradients of a layer's K or V.
struct Capture {
  int layer;
  Tensor tensor;
  int tokens;
  std::vector<float> values;  // [kv_heads, tokens, dim]
  std::vector<float> gradients;
};

// Two layers of three heads, and every quantizer that goes with `dim`.
DistortionSweep::Options MakeSweepOptions(int dim, const SweepTarget& target,
                                          int threads = 1);

// All layers of `sequences` sequences, of numbers that `dtype` can hold.
std::vector<Capture> MakeCaptures(const DistortionSweep::Options& options,
                                  int sequences, int tokens, DType dtype);

DistortionTables Sweep(const DistortionSweep::Options& options,
                       const std::vector<Capture>& captures, DType dtype);

// `tolerance` is relative.
void ExpectTablesNear(const DistortionTables& actual,
                      const DistortionTables& expected, double tolerance);

// No tolerance.
void ExpectSameTables(const DistortionTables& actual,
                      const DistortionTables& expected);

// What distortion.h promises of every backend against the reference.
void ExpectWithinBounds(const DistortionTables& actual,
                        const DistortionTables& reference, int head_dim);

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_SWEEP_SWEEP_CASES_H_
