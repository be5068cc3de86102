#ifndef RATEQUANT_TESTS_GPU_SWEEP_BENCH_H_
#define RATEQUANT_TESTS_GPU_SWEEP_BENCH_H_

namespace ratequant::kv::cuda {

// Prints the distortion sweep's part of the table: the time it takes over all
// K and V of one sequence of models of some sizes, 5 quantizers at 8 widths
// each, and what that makes of a calibration of 16 sequences.
void BenchSweep();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_GPU_SWEEP_BENCH_H_
