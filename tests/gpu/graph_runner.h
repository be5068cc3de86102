#ifndef RATEQUANT_TESTS_GPU_GRAPH_RUNNER_H_
#define RATEQUANT_TESTS_GPU_GRAPH_RUNNER_H_

#include "tests/kernels/cuda/paged_case.h"

namespace ratequant::kv::cuda {

// Captures a launch in a CUDA graph before its steps are written, and replays
// it after: what a kernel took from the host, or a launch that allocates or
// waits, shows.
class GraphRunner final : public PagedRunner {
 public:
  Status Run(const std::function<Status(cudaStream_t)>& launch,
             const std::function<Status()>& write_steps) const override;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_GPU_GRAPH_RUNNER_H_
