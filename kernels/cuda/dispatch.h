#ifndef RATEQUANT_KERNELS_CUDA_DISPATCH_H_
#define RATEQUANT_KERNELS_CUDA_DISPATCH_H_

#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/section_kernel.cuh"
#include "kernels/cuda/status.h"

// Turns what a launch says at run time into template parameters, and rejects
// what no kernel is made for.

namespace ratequant::kv::cuda {

// The errors of a launch that can be seen without reading device memory.
// `Params` is EncodeLaunch or DecodeLaunch.
template <class Params>
Status CheckLaunch(const Params& launch) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  if (launch.formats == nullptr || launch.formats->size() == 0) {
    return InvalidArgument("the launch has no format table");
  }
  const size_t element = ElementSize(launch.dtype);
  if (element == 0) {
    return InvalidArgument(
        "dtype " + number(static_cast<int>(launch.dtype)) +
        " isn't supported; supported: 0 (fp32), 1 (fp16), 2 (bf16)");
  }
  if (launch.num_tasks < 0 || launch.num_tasks > kMaxFaultTasks) {
    return InvalidArgument("num_tasks " + number(launch.num_tasks) +
                           " isn't supported; supported: 0 to " +
                           number(kMaxFaultTasks));
  }
  if (launch.num_tasks > 0 && launch.tasks == nullptr) {
    return InvalidArgument("the launch's tasks are null");
  }
  if (launch.fault == nullptr) {
    return InvalidArgument("the launch's fault word is null");
  }
  const int page_tokens = launch.formats->page_tokens();
  if (launch.max_count < 0 || launch.max_count > page_tokens) {
    return InvalidArgument("max_count " + number(launch.max_count) +
                           " isn't supported; supported: 0 to page_tokens, " +
                           number(page_tokens));
  }
  const int head_dim = launch.formats->head_dim();
  const int64_t bytes = launch.row_stride * static_cast<int64_t>(element);
  if (launch.row_stride < head_dim || bytes % 16 != 0) {
    return InvalidArgument("row_stride " + number(launch.row_stride) +
                           " isn't supported; supported: head_dim, " +
                           number(head_dim) +
                           ", and above, in multiples of 16 bytes");
  }
  return Status();
}

// Calls run.operator()<Lanes, kType>() with the RowLanes for `head_dim`, a
// multiple of 8 up to 512.
template <DType kType, class Run>
Status DispatchLanes(int head_dim, const Run& run) {
  const int octets = head_dim / kOctet;
  if (octets <= 1) return run.template operator()<RowLanes<1, 1>, kType>();
  if (octets <= 2) return run.template operator()<RowLanes<2, 1>, kType>();
  if (octets <= 4) return run.template operator()<RowLanes<4, 1>, kType>();
  if (octets <= 8) return run.template operator()<RowLanes<8, 1>, kType>();
  if (octets <= 16) return run.template operator()<RowLanes<16, 1>, kType>();
  if (octets <= 32) return run.template operator()<RowLanes<32, 1>, kType>();
  return run.template operator()<RowLanes<32, 2>, kType>();
}

template <class Run>
Status DispatchRows(int head_dim, DType dtype, const Run& run) {
  switch (dtype) {
    case DType::kFloat32:
      return DispatchLanes<DType::kFloat32>(head_dim, run);
    case DType::kFloat16:
      return DispatchLanes<DType::kFloat16>(head_dim, run);
    case DType::kBFloat16:
      break;
  }
  return DispatchLanes<DType::kBFloat16>(head_dim, run);
}

// Runs a batch kernel over the tasks of a launch that passed CheckLaunch.
// `Kernels::Get<Lanes, kType>()` is the kernel, `Kernels::SharedBytes<Lanes>()`
// what it needs.
template <class Kernels, class Task, class Params>
Status LaunchSections(const Params& launch, cudaStream_t stream) {
  const Status status = CheckLaunch(launch);
  if (!status.ok() || launch.num_tasks == 0 || launch.max_count == 0) {
    return status;
  }
  SectionBatch<Task> batch;
  batch.formats = launch.formats->device();
  batch.tasks = launch.tasks;
  batch.row_stride = launch.row_stride;
  batch.num_formats = launch.formats->size();
  batch.head_dim = launch.formats->head_dim();
  batch.page_tokens = launch.formats->page_tokens();
  batch.max_count = launch.max_count;
  batch.fault = launch.fault;
  const dim3 grid(launch.num_tasks,
                  (launch.max_count + kTileRows - 1) / kTileRows);
  return DispatchRows(
      batch.head_dim, launch.dtype, [&]<class Lanes, DType kType>() {
        return Launch(Kernels::kName, Kernels::template Get<Lanes, kType>(),
                      grid, dim3(kSectionThreads),
                      Kernels::template SharedBytes<Lanes>(), stream, batch);
      });
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_DISPATCH_H_
