// The kernels' cases of tests/kernels/cuda on a GPU, without a test framework.
//
//   gpu_tests [--some]
//
// --some runs a few of each kind, for compute-sanitizer.

#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/cuda/status.h"
#include "tests/gpu/graph_runner.h"
#include "tests/kernels/cuda/paged_case.h"
#include "tests/kernels/cuda/scalar_oracle.h"
#include "tests/kernels/cuda/section_batch.h"
#include "tests/kernels/sweep/sweep_check.h"

namespace ratequant::kv::cuda {
namespace {

struct Totals {
  int passed = 0;
  int failed = 0;

  void Count(const std::string& name, const std::string& error) {
    ++(error.empty() ? passed : failed);
    if (!error.empty()) std::printf("%s: %s\n", name.c_str(), error.c_str());
  }
};

int Main(Coverage coverage) {
  const Status device = CheckDevice();
  if (!device.ok()) {
    std::printf("%s\n", device.message().c_str());
    return 77;
  }
  Totals totals;
  for (const BatchCase& batch : BatchCases(coverage)) {
    totals.Count(batch.name, CheckBatch(batch, ScalarOracle()));
  }
  totals.Count("faults", CheckFaults());
  const GraphRunner graphs;
  for (const PagedCase& paged_case : PagedCases(coverage)) {
    totals.Count(paged_case.name, CheckPaged(paged_case));
    totals.Count(paged_case.name + " in a CUDA graph",
                 CheckPaged(paged_case, graphs));
  }
  totals.Count("paged faults", CheckPagedFaults());
  totals.Count("page edits", CheckEdits());
  for (const SweepCase& sweep_case : SweepCases()) {
    totals.Count("sweep " + sweep_case.name, CheckSweep(sweep_case));
  }
  totals.Count("sweep faults", CheckSweepFaults());
  std::printf("%d passed, %d failed\n", totals.passed, totals.failed);
  return totals.failed == 0 && totals.passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace ratequant::kv::cuda

int main(int argc, char** argv) {
  using ratequant::kv::cuda::Coverage;
  const bool some = argc == 2 && std::strcmp(argv[1], "--some") == 0;
  if (argc != 1 && !some) {
    std::fprintf(stderr, "usage: %s [--some]\n", argv[0]);
    return 2;
  }
  return ratequant::kv::cuda::Main(some ? Coverage::kSome : Coverage::kAll);
}
