#include <algorithm>
#include <string>

#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/paged_gather.cuh"
#include "kernels/cuda/paged_gather.h"

namespace ratequant::kv::cuda {
namespace {

Status CheckGather(const GatherLaunch& launch) {
  const Status layer = CheckPagedLayer(launch.layer, launch.formats);
  if (!layer.ok()) return layer;
  if (launch.first < 0 || launch.count < 0 ||
      launch.first > launch.state.begin - launch.count) {
    return InvalidArgument(
        "positions from " + std::to_string(launch.first) + " on, " +
        std::to_string(launch.count) + " of them, aren't all among the " +
        std::to_string(launch.state.begin) + " of the sequence");
  }
  // A tensor that isn't wanted is as the other.
  const bool no_keys = launch.keys.data == nullptr;
  const bool no_values = launch.values.data == nullptr;
  if (no_keys && no_values) return Status();
  return CheckKeysAndValues(AsConst(no_keys ? launch.values : launch.keys),
                            AsConst(no_values ? launch.keys : launch.values),
                            launch.layer.memory.head_dim);
}

}  // namespace

Status LaunchGather(const GatherLaunch& launch, cudaStream_t stream) {
  const Status checked = CheckGather(launch);
  const bool wanted =
      launch.keys.data != nullptr || launch.values.data != nullptr;
  if (!checked.ok() || launch.count == 0 || !wanted) return checked;
  const LayerMemory& memory = launch.layer.memory;
  GatherBatch batch;
  batch.formats = launch.formats->device();
  batch.layer = launch.layer;
  batch.state = launch.state;
  batch.first = launch.first;
  batch.count = launch.count;
  batch.tile = std::min(kTileRows, memory.page_tokens);
  batch.keys = launch.keys;
  batch.values = launch.values;
  const int tiles =
      (launch.first % batch.tile + launch.count + batch.tile - 1) / batch.tile;
  const MutableHeads& some =
      launch.keys.data != nullptr ? launch.keys : launch.values;
  return DispatchRows(
      memory.head_dim, some.dtype, [&]<class Lanes, DType kType>() {
        return Launch("launching GatherKernel", &GatherKernel<Lanes, kType>,
                      dim3(memory.kv_heads * 2, tiles), dim3(kSectionThreads),
                      sizeof(DecodeShared), stream, batch);
      });
}

}  // namespace ratequant::kv::cuda
