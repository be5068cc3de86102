#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_ops.cuh"
#include "kernels/cuda/page_ops.h"

namespace ratequant::kv::cuda {

Status LaunchEdits(const EditLaunch& launch, cudaStream_t stream) {
  // A grid's second dimension has 16 bits.
  if (launch.num_edits < 0 || launch.num_pools < 0 ||
      launch.num_pools > 0xFFFF) {
    return InvalidArgument(
        "num_edits " + std::to_string(launch.num_edits) + ", num_pools " +
        std::to_string(launch.num_pools) +
        " aren't supported; supported: 0 and more, and 0 to 65535");
  }
  if (launch.num_edits == 0 || launch.num_pools == 0) return Status();
  if (launch.edits == nullptr || launch.pools == nullptr) {
    return InvalidArgument("the launch's edits or pools are null");
  }
  return Launch("launching EditKernel", &EditKernel,
                dim3(launch.num_edits, launch.num_pools, kEditShares),
                dim3(kEditThreads), 0, stream, launch.pools, launch.edits);
}

}  // namespace ratequant::kv::cuda
