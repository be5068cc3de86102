#include "kernels/quantizers/attention_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/output_change.h"
#include "kernels/cuda/status.h"
#include "kernels/quantizers/sweep_backend.h"

namespace ratequant::kv {
namespace {

using cuda::DeviceBuffer;
using cuda::Status;

absl::Status ToAbsl(const Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code()),
                      status.message());
}

// All work is on the default stream of one device, a KV head at a time.
class CudaAttentionBackend final : public AttentionBackend {
 public:
  explicit CudaAttentionBackend(const DistortionSweep::Options& options)
      : options_(options),
        block_tokens_(SweepBlockTokens(options.quantizers)),
        share_(options.query_heads / options.kv_heads),
        pairs_(static_cast<int>(options.quantizers.size() *
                                options.widths.size())) {}

  Status Init();

  absl::StatusOr<std::vector<double>> Measure(
      const AttentionCapture& capture) override;

 private:
  // What the device keeps of a capture.
  struct Tensors {
    DeviceBuffer<char> keys, values, queries, gradients;
  };

  Status Copy(const void* data, size_t bytes, DeviceBuffer<char>& buffer);
  Status CopyCapture(const AttentionCapture& capture);
  Status Reserve(const AttentionCapture& capture);
  // The head's rows as every pair decodes them, into decoded_.
  Status Decode(Tensor tensor, const void* rows,
                const AttentionCapture& capture);
  Status MeasureHead(const AttentionCapture& capture, int index,
                     std::vector<double>& sums);

  const DistortionSweep::Options options_;
  const int block_tokens_;
  const int share_;
  const int pairs_;
  cuda::FormatTable formats_[2];  // of K and V, a pair each
  uint64_t section_bytes_ = 0;    // of the largest section, a multiple of 16
  Tensors tensors_;
  DeviceBuffer<uint8_t> sections_;  // [pairs, blocks][section_bytes_]
  DeviceBuffer<cuda::EncodeTask> encode_tasks_;
  DeviceBuffer<cuda::DecodeTask> decode_tasks_;
  DeviceBuffer<cuda::FaultWord> fault_;
  DeviceBuffer<float> decoded_;   // [pairs, tokens, head_dim]
  DeviceBuffer<float> columns_;   // as decoded_
  DeviceBuffer<float> matrices_;  // [3, share, tokens, tokens]
  DeviceBuffer<double> partials_;
};

template <class T>
Status Grow(size_t size, DeviceBuffer<T>& buffer) {
  return buffer.size() < size ? buffer.Allocate(size) : Status();
}

Status CudaAttentionBackend::Init() {
  Status status = cuda::StatusOfCuda(cudaSetDevice(options_.device.ordinal),
                                     "cudaSetDevice");
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    std::vector<cuda::FormatSpec> specs;
    for (const QuantizerSpec& spec : options_.quantizers) {
      for (const int width : options_.widths) {
        specs.push_back({spec, tensor, width});
      }
    }
    cuda::FormatTable& formats = formats_[static_cast<int>(tensor)];
    if (status.ok()) {
      status = cuda::FormatTable::Create(options_.head_dim, block_tokens_,
                                         specs, nullptr, &formats);
    }
    for (int pair = 0; status.ok() && pair < formats.size(); ++pair) {
      const uint64_t bytes = formats.layout(pair).section_bytes;
      section_bytes_ = std::max(section_bytes_, (bytes + 15) / 16 * 16);
    }
  }
  return status.ok() ? fault_.Allocate(1) : status;
}

Status CudaAttentionBackend::Copy(const void* data, size_t bytes,
                                  DeviceBuffer<char>& buffer) {
  const Status grown = Grow(bytes, buffer);
  if (!grown.ok()) return grown;
  return cuda::StatusOfCuda(
      cudaMemcpyAsync(buffer.data(), data, bytes, cudaMemcpyDefault, nullptr),
      "copying a tensor to the device");
}

Status CudaAttentionBackend::CopyCapture(const AttentionCapture& capture) {
  const size_t head = static_cast<size_t>(capture.tokens) * options_.head_dim *
                      ElementSize(capture.dtype);
  const size_t cached = head * options_.kv_heads;
  const size_t queried = head * options_.query_heads;
  Status status = Copy(capture.keys, cached, tensors_.keys);
  if (status.ok()) status = Copy(capture.values, cached, tensors_.values);
  if (status.ok()) status = Copy(capture.queries, queried, tensors_.queries);
  if (status.ok()) {
    status = Copy(capture.output_gradients, queried, tensors_.gradients);
  }
  return status;
}

Status CudaAttentionBackend::Reserve(const AttentionCapture& capture) {
  const size_t tokens = capture.tokens;
  const size_t sections = pairs_ * (tokens / block_tokens_);
  const size_t rows = pairs_ * tokens * options_.head_dim;
  Status status = Grow(sections * section_bytes_, sections_);
  // Exactly as many as there are: they are copied whole.
  if (status.ok() && encode_tasks_.size() != sections) {
    status = encode_tasks_.Allocate(sections);
    if (status.ok()) status = decode_tasks_.Allocate(sections);
  }
  if (status.ok()) status = Grow(rows, decoded_);
  if (status.ok()) status = Grow(rows, columns_);
  if (status.ok()) status = Grow(3 * share_ * tokens * tokens, matrices_);
  const size_t partials = pairs_ * (tokens / cuda::kOutputTileRows);
  if (status.ok() && partials_.size() != partials) {
    status = partials_.Allocate(partials);
  }
  return status;
}

Status CudaAttentionBackend::Decode(Tensor tensor, const void* rows,
                                    const AttentionCapture& capture) {
  const int dim = options_.head_dim;
  const size_t block_bytes =
      static_cast<size_t>(block_tokens_) * dim * ElementSize(capture.dtype);
  const int blocks = capture.tokens / block_tokens_;
  std::vector<cuda::EncodeTask> encode;
  std::vector<cuda::DecodeTask> decode;
  for (int pair = 0; pair < pairs_; ++pair) {
    for (int block = 0; block < blocks; ++block) {
      uint8_t* const section =
          sections_.data() + encode.size() * section_bytes_;
      const int first = block * block_tokens_;
      encode.push_back(
          {section, static_cast<const char*>(rows) + block * block_bytes, pair,
           0, block_tokens_,
           std::clamp(options_.sink_tokens - first, 0, block_tokens_)});
      cuda::DecodeTask task;
      task.section = section;
      task.rows = decoded_.data() +
                  (static_cast<size_t>(pair) * capture.tokens + first) * dim;
      task.format = pair;
      task.count = block_tokens_;
      decode.push_back(task);
    }
  }
  cuda::FaultWord fault = cuda::kNoFault;
  Status status = fault_.CopyFrom(&fault, nullptr);
  if (status.ok()) status = encode_tasks_.CopyFrom(encode.data(), nullptr);
  if (status.ok()) status = decode_tasks_.CopyFrom(decode.data(), nullptr);
  const cuda::FormatTable& formats = formats_[static_cast<int>(tensor)];
  const int tasks = static_cast<int>(encode.size());
  if (status.ok()) {
    status =
        cuda::LaunchEncode({&formats, encode_tasks_.data(), tasks,
                            block_tokens_, capture.dtype, dim, fault_.data()},
                           nullptr);
  }
  if (status.ok()) {
    status =
        cuda::LaunchDecode({&formats, decode_tasks_.data(), tasks,
                            block_tokens_, DType::kFloat32, dim, fault_.data()},
                           nullptr);
  }
  if (status.ok()) status = fault_.CopyTo(&fault, nullptr);
  if (status.ok()) {
    // The tasks above must stay until they are copied.
    status = cuda::StatusOfCuda(cudaStreamSynchronize(nullptr),
                                "decoding a head's rows");
  }
  return status.ok() ? cuda::StatusOfFault(fault) : status;
}

Status CudaAttentionBackend::MeasureHead(const AttentionCapture& capture,
                                         int index, std::vector<double>& sums) {
  const size_t row = static_cast<size_t>(capture.tokens) * options_.head_dim *
                     ElementSize(capture.dtype);
  const size_t matrix =
      static_cast<size_t>(share_) * capture.tokens * capture.tokens;
  cuda::OutputHead head;
  head.tokens = capture.tokens;
  head.head_dim = options_.head_dim;
  head.share = share_;
  head.softmax_scale = capture.params.softmax_scale;
  head.soft_cap = capture.params.soft_cap;
  head.view = ViewOf(options_, capture.params);
  head.dtype = capture.dtype;
  head.keys = tensors_.keys.data() + index * row;
  head.values = tensors_.values.data() + index * row;
  head.queries = tensors_.queries.data() + index * share_ * row;
  head.gradients = tensors_.gradients.data() + index * share_ * row;
  head.scores = matrices_.data();
  head.weights = matrices_.data() + matrix;
  head.costs = matrices_.data() + 2 * matrix;
  Status status = cuda::LaunchExactAttention(head, nullptr);
  std::vector<double> partials(partials_.size());
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    if (status.ok()) {
      status = Decode(tensor, tensor == Tensor::kKey ? head.keys : head.values,
                      capture);
    }
    if (status.ok()) {
      status = cuda::LaunchOutputChanges(
          head,
          {tensor, pairs_, decoded_.data(), columns_.data(), partials_.data()},
          nullptr);
    }
    if (status.ok()) status = partials_.CopyTo(partials.data(), nullptr);
    if (status.ok()) {
      status = cuda::StatusOfCuda(cudaStreamSynchronize(nullptr),
                                  "the attention-output distortion");
    }
    if (!status.ok()) return status;
    const size_t tiles = partials.size() / pairs_;
    for (int pair = 0; pair < pairs_; ++pair) {
      double sum = 0;
      for (size_t tile = 0; tile < tiles; ++tile) {
        sum += partials[pair * tiles + tile];
      }
      sums.push_back(sum);
    }
  }
  return status;
}

absl::StatusOr<std::vector<double>> CudaAttentionBackend::Measure(
    const AttentionCapture& capture) {
  Status status = cuda::StatusOfCuda(cudaSetDevice(options_.device.ordinal),
                                     "cudaSetDevice");
  if (status.ok()) status = CopyCapture(capture);
  if (status.ok()) status = Reserve(capture);
  std::vector<double> sums;
  for (int head = 0; status.ok() && head < options_.kv_heads; ++head) {
    status = MeasureHead(capture, head, sums);
  }
  if (!status.ok()) return ToAbsl(status);
  return sums;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const DistortionSweep::Options& options) {
  auto backend = std::make_unique<CudaAttentionBackend>(options);
  const Status status = backend->Init();
  if (!status.ok()) return ToAbsl(status);
  return backend;
}

}  // namespace ratequant::kv
