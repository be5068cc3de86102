#include <algorithm>
#include <string>

#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/paged_append.cuh"
#include "kernels/cuda/paged_append.h"

namespace ratequant::kv::cuda {
namespace {

Status CheckAppend(const AppendLaunch& launch) {
  const Status layer = CheckPagedLayer(launch.layer, launch.formats);
  if (!layer.ok()) return layer;
  const int groups = launch.layer.memory.kv_heads * 2;
  if (launch.num_steps < 0 || launch.num_steps > kMaxFaultTasks / groups) {
    return InvalidArgument("num_steps " + std::to_string(launch.num_steps) +
                           " isn't supported; supported: 0 to " +
                           std::to_string(kMaxFaultTasks / groups));
  }
  if (launch.num_steps > 0 && launch.steps == nullptr) {
    return InvalidArgument("the launch's steps are null");
  }
  if (launch.max_tokens < 1 || launch.max_tokens > kMaxStepTokens) {
    return InvalidArgument("max_tokens " + std::to_string(launch.max_tokens) +
                           " isn't supported; supported: 1 to " +
                           std::to_string(kMaxStepTokens));
  }
  if (launch.fault == nullptr) {
    return InvalidArgument("the launch's fault word is null");
  }
  return CheckKeysAndValues(launch.keys, launch.values,
                            launch.layer.memory.head_dim);
}

// Tiles that `rows` positions side by side touch at most.
unsigned TilesOf(int rows, int tile) {
  return static_cast<unsigned>((rows + tile - 2) / tile + 1);
}

}  // namespace

Status LaunchAppend(const AppendLaunch& launch, cudaStream_t stream) {
  const Status checked = CheckAppend(launch);
  if (!checked.ok() || launch.num_steps == 0) return checked;
  const LayerMemory& memory = launch.layer.memory;
  AppendBatch batch;
  batch.formats = launch.formats->device();
  batch.num_formats = launch.formats->size();
  batch.max_tokens = launch.max_tokens;
  batch.layer = launch.layer;
  batch.steps = launch.steps;
  batch.keys = launch.keys;
  batch.values = launch.values;
  batch.fault = launch.fault;
  const unsigned work = static_cast<unsigned>(launch.num_steps) *
                        static_cast<unsigned>(memory.kv_heads) * 2;
  // Whole blocks of tokens reach into no more tiles than single tokens do.
  const int tile = std::min(kTileRows, memory.page_tokens);
  // A group of tokens is a page at most.
  const int stored =
      std::min(launch.max_tokens,
               memory.sink_tokens + memory.window + memory.page_tokens);
  return DispatchRows(
      memory.head_dim, launch.keys.dtype, [&]<class Lanes, DType kType>() {
        const Status packed = Launch(
            "launching PackStepKernel", &PackStepKernel<Lanes, kType>,
            dim3(work, TilesOf(launch.max_tokens, tile)), dim3(kSectionThreads),
            sizeof(EncodeShared<Lanes>), stream, batch);
        if (!packed.ok()) return packed;
        return Launch("launching StoreStepKernel", &StoreStepKernel<kType>,
                      dim3(work, (stored + kTileRows - 1) / kTileRows),
                      dim3(kSectionThreads), 0, stream, batch);
      });
}

}  // namespace ratequant::kv::cuda
