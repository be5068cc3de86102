#include <algorithm>
#include <string>

#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sweep.cuh"
#include "kernels/cuda/sweep.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kAddThreads = 128;

// Adds the blocks of head blockIdx.x to its sums, in order, and the square of
// what that adds to its squares.
__global__ void AddPartialsKernel(const double* partials, int blocks_per_head,
                                  int size, double* sums, double* squares,
                                  int64_t sums_stride,
                                  const SweepReport* report) {
  if (report->fault != kNoFault) return;
  const double* const mine =
      partials + static_cast<int64_t>(blockIdx.x) * blocks_per_head * size;
  for (int k = threadIdx.x; k < size; k += kAddThreads) {
    double sum = 0.0;
    for (int block = 0; block < blocks_per_head; ++block) {
      sum += mine[static_cast<int64_t>(block) * size + k];
    }
    const int64_t at = blockIdx.x * sums_stride + k;
    sums[at] += sum;
    if (squares != nullptr) squares[at] += sum * sum;
  }
}

Status Unsupported(const char* name, int64_t value,
                   const std::string& supported) {
  return InvalidArgument(std::string(name) + " " + std::to_string(value) +
                         " isn't supported; supported: " + supported);
}

bool IsVectors(const void* address) {
  return address != nullptr && reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

Status CheckSweep(const SweepLaunch& launch) {
  if (launch.table == nullptr || launch.table->head_dim() == 0) {
    return InvalidArgument("the launch has no sweep table");
  }
  if (ElementSize(launch.dtype) == 0) {
    return Unsupported("dtype", static_cast<int>(launch.dtype),
                       "0 (fp32), 1 (fp16), 2 (bf16)");
  }
  if (launch.tensor != Tensor::kKey && launch.tensor != Tensor::kValue) {
    return Unsupported("tensor", static_cast<int>(launch.tensor),
                       "0 (K), 1 (V)");
  }
  const int block = launch.block_tokens;
  if (block < 32 || block > 128 || block % 32 != 0) {
    return Unsupported("block_tokens", block, "32, 64, 96, 128");
  }
  if (launch.tokens < block || launch.tokens % block != 0) {
    return Unsupported("tokens", launch.tokens,
                       "multiples of block_tokens, " + std::to_string(block));
  }
  const int64_t blocks = int64_t{launch.heads} * (launch.tokens / block);
  if (launch.heads < 1 || 2 * blocks > kMaxFaultTasks) {
    return Unsupported("heads", launch.heads,
                       "1 and above, with at most " +
                           std::to_string(kMaxFaultTasks / 2) + " blocks");
  }
  if (launch.sink_tokens < 0) {
    return Unsupported("sink_tokens", launch.sink_tokens, "0 and above");
  }
  if (!IsVectors(launch.values) || !IsVectors(launch.gradients)) {
    return InvalidArgument(
        "the launch's values or gradients are null or not a multiple of 16");
  }
  if (launch.partials == nullptr || launch.sums == nullptr ||
      launch.report == nullptr) {
    return InvalidArgument("the launch's partials, sums or report are null");
  }
  return Status();
}

SweepBatch MakeBatch(const SweepLaunch& launch) {
  const SweepTable& table = *launch.table;
  SweepBatch batch;
  batch.quantizers = table.quantizers();
  batch.codebooks = table.codebooks();
  batch.layout = table.sums();
  batch.widths.count = batch.layout.num_widths;
  std::copy(table.widths().begin(), table.widths().end(), batch.widths.bits);
  batch.tensor = launch.tensor;
  batch.dtype = launch.dtype;
  batch.values = launch.values;
  batch.gradients = launch.gradients;
  batch.head_dim = table.head_dim();
  batch.block_tokens = launch.block_tokens;
  batch.blocks_per_head = launch.tokens / launch.block_tokens;
  batch.sink_tokens = launch.sink_tokens;
  batch.partials = launch.partials;
  batch.report = launch.report;
  return batch;
}

// Shared memory that a block of the current device can have.
Status FindSharedLimit(int* bytes) {
  int device = 0;
  const Status status = StatusOfCuda(cudaGetDevice(&device), "cudaGetDevice");
  if (!status.ok()) return status;
  return StatusOfCuda(
      cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                             device),
      "cudaDeviceGetAttribute");
}

template <class Lanes>
Status StartSweep(SweepBatch& batch, int blocks, int shared_limit,
                  cudaStream_t stream) {
  const size_t tile = size_t{2} * batch.block_tokens * batch.head_dim *
                      ElementSize(batch.dtype);
  batch.staged =
      sizeof(SweepShared<Lanes>) + tile <= static_cast<size_t>(shared_limit);
  const int warps = std::clamp(batch.block_tokens / Lanes::kRowsPerWarp, 1,
                               kMaxSweepWarps<Lanes>);
  return Launch("launching SweepKernel", &SweepKernel<Lanes>, dim3(blocks),
                dim3(warps * kWarpLanes),
                sizeof(SweepShared<Lanes>) + (batch.staged ? tile : 0), stream,
                batch);
}

}  // namespace

Status LaunchSweep(const SweepLaunch& launch, cudaStream_t stream) {
  const Status checked = CheckSweep(launch);
  if (!checked.ok()) return checked;
  int shared_limit = 0;
  const Status found = FindSharedLimit(&shared_limit);
  if (!found.ok()) return found;
  SweepBatch batch = MakeBatch(launch);
  // The dtype is no parameter of the kernel.
  const Status started =
      DispatchLanes<DType::kFloat32>(batch.head_dim, [&]<class Lanes, DType>() {
        return StartSweep<Lanes>(batch, launch.heads * batch.blocks_per_head,
                                 shared_limit, stream);
      });
  if (!started.ok()) return started;
  return Launch("launching AddPartialsKernel", &AddPartialsKernel,
                dim3(launch.heads), dim3(kAddThreads), 0, stream,
                static_cast<const double*>(launch.partials),
                batch.blocks_per_head, static_cast<int>(batch.layout.Size()),
                launch.sums, launch.squares, launch.sums_stride,
                static_cast<const SweepReport*>(launch.report));
}

}  // namespace ratequant::kv::cuda
