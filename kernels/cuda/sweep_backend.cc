#include "kernels/quantizers/sweep_backend.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/sweep.h"
#include "kernels/cuda/sweep_table.h"
#include "kernels/quantizers/element.h"

namespace ratequant::kv {
namespace {

using cuda::DeviceBuffer;

absl::Status ToAbsl(const cuda::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code()),
                      status.message());
}

absl::Status CheckDevice(const Device& device) {
  const cuda::Status any = cuda::CheckDevice();
  if (!any.ok()) return ToAbsl(any);
  int count = 0;
  const cuda::Status counted =
      cuda::StatusOfCuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (!counted.ok()) return ToAbsl(counted);
  if (device.ordinal < count) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("there is no CUDA device ", device.ordinal,
                   "; the runtime finds ", count, ", from 0 on"));
}

// All work is on the default stream of one device.
class CudaSweepBackend final : public SweepBackend {
 public:
  explicit CudaSweepBackend(const DistortionSweep::Options& options)
      : options_(options),
        block_tokens_(SweepBlockTokens(options.quantizers)),
        size_(SweepSumsOf(options).Size()) {}

  cuda::Status Init();

  absl::StatusOr<SweepAdded> Add(const SweepInput& input) override;
  absl::StatusOr<std::vector<double>> Sums() const override;

 private:
  size_t NumSums() const {
    return SweepGroupIndex(options_, options_.layers, 0, Tensor::kKey) * size_;
  }

  // The data itself, or a copy in `buffer`, where kernels can read it.
  cuda::Status PlaceOnDevice(const void* data, size_t bytes,
                             DeviceBuffer<char>& buffer, const void** placed);
  cuda::Status Measure(const SweepInput& input, cuda::SweepReport* report);
  cuda::Status FindBad(const SweepInput& input, cuda::FaultWord fault,
                       BadSweepElement* bad) const;

  const DistortionSweep::Options options_;
  const int block_tokens_;
  const size_t size_;  // doubles of a group
  cuda::SweepTable table_;
  DeviceBuffer<double> sums_;  // [2 (sums, squares)][num_groups][size_]
  DeviceBuffer<double> partials_;
  DeviceBuffer<char> values_;
  DeviceBuffer<char> gradients_;
  DeviceBuffer<cuda::SweepReport> report_;
};

cuda::Status CudaSweepBackend::Init() {
  cuda::Status status = cuda::StatusOfCuda(
      cudaSetDevice(options_.device.ordinal), "cudaSetDevice");
  if (status.ok()) {
    status = cuda::SweepTable::Create(options_.head_dim, options_.quantizers,
                                      options_.widths, nullptr, &table_);
  }
  if (status.ok()) status = report_.Allocate(1);
  if (status.ok()) status = sums_.Allocate(2 * NumSums());
  if (!status.ok()) return status;
  return cuda::StatusOfCuda(
      cudaMemsetAsync(sums_.data(), 0, 2 * NumSums() * sizeof(double), nullptr),
      "clearing the sums");
}

cuda::Status CudaSweepBackend::PlaceOnDevice(const void* data, size_t bytes,
                                             DeviceBuffer<char>& buffer,
                                             const void** placed) {
  cudaPointerAttributes attributes;
  cuda::Status status =
      cuda::StatusOfCuda(cudaPointerGetAttributes(&attributes, data),
                         "finding out where a tensor is");
  if (!status.ok()) return status;
  const bool here = (attributes.type == cudaMemoryTypeDevice &&
                     attributes.device == options_.device.ordinal) ||
                    attributes.type == cudaMemoryTypeManaged;
  // Kernels read vectors of 16 bytes.
  if (here && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
    *placed = data;
    return status;
  }
  if (buffer.size() < bytes) status = buffer.Allocate(bytes);
  if (!status.ok()) return status;
  *placed = buffer.data();
  return cuda::StatusOfCuda(
      cudaMemcpyAsync(buffer.data(), data, bytes, cudaMemcpyDefault, nullptr),
      "copying a tensor to the device");
}

cuda::Status CudaSweepBackend::Measure(const SweepInput& input,
                                       cuda::SweepReport* report) {
  const size_t blocks =
      static_cast<size_t>(options_.kv_heads) * (input.tokens / block_tokens_);
  const size_t bytes =
      blocks * block_tokens_ * options_.head_dim * ElementSize(input.dtype);
  cuda::SweepLaunch launch;
  launch.table = &table_;
  launch.tensor = input.tensor;
  launch.dtype = input.dtype;
  launch.heads = options_.kv_heads;
  launch.tokens = input.tokens;
  launch.block_tokens = block_tokens_;
  launch.sink_tokens = options_.sink_tokens;
  cuda::Status status = cuda::StatusOfCuda(
      cudaSetDevice(options_.device.ordinal), "cudaSetDevice");
  if (status.ok()) {
    status = PlaceOnDevice(input.values, bytes, values_, &launch.values);
  }
  if (status.ok()) {
    status =
        PlaceOnDevice(input.gradients, bytes, gradients_, &launch.gradients);
  }
  if (status.ok() && partials_.size() < blocks * size_) {
    status = partials_.Allocate(blocks * size_);
  }
  if (status.ok()) status = report_.CopyFrom(report, nullptr);
  if (!status.ok()) return status;
  launch.partials = partials_.data();
  launch.sums = sums_.data() +
                SweepGroupIndex(options_, input.layer, 0, input.tensor) * size_;
  launch.squares = launch.sums + NumSums();
  launch.sums_stride = static_cast<int64_t>(2 * size_);  // K and V take turns
  launch.report = report_.data();
  status = cuda::LaunchSweep(launch, nullptr);
  if (status.ok()) status = report_.CopyTo(report, nullptr);
  if (!status.ok()) return status;
  return cuda::StatusOfCuda(cudaStreamSynchronize(nullptr), "the sweep");
}

cuda::Status CudaSweepBackend::FindBad(const SweepInput& input,
                                       cuda::FaultWord fault,
                                       BadSweepElement* bad) const {
  const cuda::FaultPlace place = cuda::PlaceOfFault(fault);
  const int block = static_cast<int>(place.task / 2);
  const int blocks_per_head = input.tokens / block_tokens_;
  bad->is_gradient = place.task % 2 != 0;
  bad->head = block / blocks_per_head;
  bad->token = int64_t{block % blocks_per_head} * block_tokens_ + place.row;
  bad->channel = static_cast<int>(place.channel);
  const size_t size = ElementSize(input.dtype);
  const size_t index =
      (static_cast<size_t>(bad->head) * input.tokens + bad->token) *
          options_.head_dim +
      bad->channel;
  const void* const data = bad->is_gradient ? input.gradients : input.values;
  char element[sizeof(float)];
  cuda::Status status = cuda::StatusOfCuda(
      cudaMemcpyAsync(element, static_cast<const char*>(data) + index * size,
                      size, cudaMemcpyDefault, nullptr),
      "reading a bad element");
  if (status.ok()) {
    status = cuda::StatusOfCuda(cudaStreamSynchronize(nullptr),
                                "reading a bad element");
  }
  if (status.ok()) bad->value = LoadElement(element, input.dtype, 0);
  return status;
}

absl::StatusOr<SweepAdded> CudaSweepBackend::Add(const SweepInput& input) {
  cuda::SweepReport report;
  cuda::Status status = Measure(input, &report);
  if (!status.ok()) return ToAbsl(status);
  SweepAdded added;
  added.has_nonzero = report.has_nonzero != 0;
  if (report.fault == cuda::kNoFault) return added;
  status = FindBad(input, report.fault, &added.bad.emplace());
  if (!status.ok()) return ToAbsl(status);
  return added;
}

absl::StatusOr<std::vector<double>> CudaSweepBackend::Sums() const {
  std::vector<double> sums(2 * NumSums());
  cuda::Status status = cuda::StatusOfCuda(
      cudaSetDevice(options_.device.ordinal), "cudaSetDevice");
  if (status.ok()) status = sums_.CopyTo(sums.data(), nullptr);
  if (status.ok()) {
    status =
        cuda::StatusOfCuda(cudaStreamSynchronize(nullptr), "reading the sums");
  }
  if (!status.ok()) return ToAbsl(status);
  return sums;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SweepBackend>> MakeCudaSweepBackend(
    const DistortionSweep::Options& options) {
  const absl::Status found = CheckDevice(options.device);
  if (!found.ok()) return found;
  auto backend = std::make_unique<CudaSweepBackend>(options);
  const cuda::Status status = backend->Init();
  if (!status.ok()) return ToAbsl(status);
  return backend;
}

}  // namespace ratequant::kv
