#ifndef RATEQUANT_TESTS_GPU_BENCH_UTIL_H_
#define RATEQUANT_TESTS_GPU_BENCH_UTIL_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/cuda/status.h"

namespace ratequant::kv::cuda {

inline constexpr int kRuns = 9;

// Ends the program, saying why, unless all is well.
void Require(const Status& status);
void Require(cudaError_t error);

// Median milliseconds of kRuns runs, after two that don't count.
double MedianMs(const std::function<void()>& run);

// Bytes a millisecond, read and written, of a copy on the device.
double CopyBandwidth(const void* from, void* to, size_t bytes);

// fp16 values of a model's size, from a counter.
std::vector<uint16_t> MakeHalves(size_t count);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_GPU_BENCH_UTIL_H_
