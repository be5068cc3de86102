#include "tests/gpu/bench_util.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace ratequant::kv::cuda {

void Require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "gpu_bench: %s\n", status.message().c_str());
  std::exit(1);
}
void Require(cudaError_t error) { Require(StatusOfCuda(error, "CUDA")); }

double MedianMs(const std::function<void()>& run) {
  cudaEvent_t begin, end;
  Require(cudaEventCreate(&begin));
  Require(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < kRuns + 2; ++i) {
    Require(cudaEventRecord(begin));
    run();
    Require(cudaEventRecord(end));
    Require(cudaEventSynchronize(end));
    float ms = 0;
    Require(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 2) times.push_back(ms);
  }
  Require(cudaEventDestroy(begin));
  Require(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

double CopyBandwidth(const void* from, void* to, size_t bytes) {
  const double ms = MedianMs([&] {
    Require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice));
  });
  return 2.0 * static_cast<double>(bytes) / ms;
}

std::vector<uint16_t> MakeHalves(size_t count) {
  std::vector<uint16_t> halves(count);
  uint32_t state = 1;
  for (uint16_t& half : halves) {
    state = state * 1664525u + 1013904223u;
    half = static_cast<uint16_t>((state >> 16 & 0x8000) | 0x3400 |
                                 (state >> 8 & 0x0BFF));
  }
  return halves;
}

}  // namespace ratequant::kv::cuda
