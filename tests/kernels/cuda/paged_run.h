#ifndef RATEQUANT_TESTS_KERNELS_CUDA_PAGED_RUN_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_PAGED_RUN_H_

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/paged_append.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/paged_gather.h"
#include "tests/kernels/cuda/paged_host.h"

namespace ratequant::kv::cuda {

// A case's layer in device memory, beside the host's.
class PagedRun {
 public:
  PagedRun(const PagedCase& paged_case, const PagedRunner& runner)
      : case_(paged_case), runner_(runner), host_(paged_case) {}

  // Call first. Copies the host's memory.
  Status Start();

  // Appends tokens[s] new tokens to every sequence s, on the device and the
  // host. DATA_LOSS and INVALID_ARGUMENT for what the fault word says.
  Status Append(const std::vector<int>& tokens);

  // Each gives "" or what differs first.
  std::string CheckMemory();
  std::string CheckGather(int s, int first, int count);
  std::string CheckAttention(const std::vector<int>& tokens);

 private:
  PagedLayer Layer() const;
  // One entry a sequence, in turned order, and one that isn't used.
  std::vector<SequenceStep> Steps(const std::vector<int>& tokens) const;
  // A tensor of the case's dtype, NaN wherever nothing is written.
  struct HostTensor {
    int64_t head_stride = 0;
    int64_t row_stride = 0;
    std::vector<uint8_t> bytes;
  };
  HostTensor MakeTensor(int heads, int rows) const;
  float QueryAt(int head, int row, int channel) const;
  std::vector<double> Expected(int s, int position, int query_head,
                               int query_row) const;

  // Starts `launch` with `steps` in steps_.
  Status Run(const std::vector<SequenceStep>& steps,
             const std::function<Status(cudaStream_t)>& launch);

  const PagedCase& case_;
  const PagedRunner& runner_;
  PagedHost host_;
  FormatTable formats_;
  DeviceBuffer<uint8_t> pages_;
  DeviceBuffer<uint8_t> sidecars_;
  DeviceBuffer<int32_t> block_table_;
  DeviceBuffer<GroupPlace> groups_;
  DeviceBuffer<int32_t> format_index_;
  DeviceBuffer<SequenceStep> steps_;
  DeviceBuffer<FaultWord> fault_;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_PAGED_RUN_H_
