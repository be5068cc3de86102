#include "kernels/cache/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cache/layer_places.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/format_table.h"
#include "kernels/cuda/page_ops.h"
#include "kernels/cuda/paged_append.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/paged_gather.h"
#include "kernels/cuda/task.h"

namespace ratequant::kv {
namespace {

using cuda::DeviceBuffer;

// Edits of one launch; longer lists take several.
constexpr int kMaxEdits = 4096;
// Blocks of attention that a multiprocessor has at a time.
constexpr int kCtasPerMultiprocessor = 4;
// Tokens that an append without a batch stores at a time: the grid is as large.
constexpr int kSingleTokens = 4096;
// What kernels read in vectors.
constexpr int kAlignment = 16;

cudaStream_t StreamOf(const Execution& on) {
  return static_cast<cudaStream_t>(on.stream);
}

absl::Status ToAbsl(const cuda::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.code()),
                      status.message());
}

absl::Status Checked(cudaError_t error, const char* what) {
  return ToAbsl(cuda::StatusOfCuda(error, what));
}

// Makes a device the calling thread's, and the one before again at the end.
class ScopedDevice {
 public:
  explicit ScopedDevice(int device) {
    if (cudaGetDevice(&before_) == cudaSuccess && before_ != device) {
      changed_ = cudaSetDevice(device) == cudaSuccess;
    }
  }
  ~ScopedDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  ScopedDevice(const ScopedDevice&) = delete;
  ScopedDevice& operator=(const ScopedDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// The formats of a cache, each once, and which one each group has.
class FormatList {
 public:
  int Add(const GroupFormat& group, Tensor tensor) {
    cuda::FormatSpec spec = {group.quantizer, tensor, group.width};
    if (group.width == kFp16Width) spec.quantizer = {};
    const auto same = [&](const cuda::FormatSpec& other) {
      return other.quantizer == spec.quantizer && other.tensor == tensor &&
             other.width == spec.width;
    };
    const auto it = std::find_if(specs_.begin(), specs_.end(), same);
    if (it != specs_.end()) return static_cast<int>(it - specs_.begin());
    specs_.push_back(spec);
    return static_cast<int>(specs_.size()) - 1;
  }
  const std::vector<cuda::FormatSpec>& specs() const { return specs_; }

 private:
  std::vector<cuda::FormatSpec> specs_;
};

template <typename T>
absl::Status Upload(const std::vector<T>& from, DeviceBuffer<T>& to) {
  cuda::Status status = to.Allocate(from.size());
  if (status.ok()) status = to.CopyFrom(from.data(), nullptr);
  return ToAbsl(status);
}

absl::Status AllocateZeros(int64_t bytes, DeviceBuffer<uint8_t>& to) {
  absl::Status status = ToAbsl(to.Allocate(static_cast<size_t>(bytes)));
  if (!status.ok() || bytes == 0) return status;
  return Checked(cudaMemsetAsync(to.data(), 0, to.size(), nullptr),
                 "zeroing the cache");
}

struct CudaBatch final : BackendBatch {
  int max_tokens = 0;
  std::vector<SequenceStep> host;  // [max_entries], unused ones empty
  DeviceBuffer<SequenceStep> steps;
  DeviceBuffer<uint8_t> workspace;  // empty where attention isn't possible
};

class CudaBackend final : public CacheBackend {
 public:
  CudaBackend(const KvCacheConfig& config, int device)
      : config_(config), device_(device) {}

  absl::Status Init(const KvLayout& layout, const KvCacheOptions& options,
                    int max_blocks) {
    const ScopedDevice device(device_);
    int multiprocessors = 1;
    absl::Status status =
        Checked(cudaDeviceGetAttribute(&multiprocessors,
                                       cudaDevAttrMultiProcessorCount, device_),
                "reading the number of multiprocessors");
    num_ctas_ = multiprocessors * kCtasPerMultiprocessor;
    max_blocks_ = max_blocks;
    if (status.ok()) {
      status = AllocateZeros(
          int64_t{options.max_sequences} * max_blocks * sizeof(int32_t),
          block_table_);
    }
    layers_.resize(layout.layers.size());
    FormatList formats;
    for (size_t i = 0; status.ok() && i < layers_.size(); ++i) {
      status =
          InitLayer(static_cast<int>(i), layout.layers[i], options, formats);
    }
    if (status.ok()) {
      status = ToAbsl(cuda::FormatTable::Create(
          config_.geometry.head_dim, config_.page_tokens, formats.specs(),
          nullptr, &formats_));
    }
    if (status.ok()) status = InitPools();
    if (status.ok()) status = ToAbsl(edits_.Allocate(kMaxEdits));
    host_faults_.assign(layers_.size(), cuda::kNoFault);
    if (status.ok()) status = Upload(host_faults_, faults_);
    if (!status.ok()) return status;
    return Checked(cudaStreamSynchronize(nullptr), "making the cache");
  }

  absl::StatusOr<std::unique_ptr<BackendBatch>> MakeBatch(
      int max_entries, int max_tokens) const override {
    if (max_tokens > cuda::kMaxStepTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("a batch of ", max_tokens,
                       " tokens an entry is not supported on a "
                       "GPU; supported are up to ",
                       cuda::kMaxStepTokens));
    }
    const ScopedDevice device(device_);
    auto batch = std::make_unique<CudaBatch>();
    batch->max_tokens = max_tokens;
    batch->host.resize(max_entries);
    absl::Status status = Upload(batch->host, batch->steps);
    const KvGeometry& g = config_.geometry;
    if (status.ok() && g.query_heads > 0 && max_tokens <= kMaxDecodeQueries) {
      status = ToAbsl(batch->workspace.Allocate(
          cuda::AttentionWorkspaceBytes(max_entries, g.kv_heads, g.head_dim,
                                        g.query_heads, max_tokens, num_ctas_)));
    }
    if (!status.ok()) return status;
    return batch;
  }

  absl::Status SetSteps(absl::Span<const SequenceStep> steps,
                        BackendBatch& batch, const Execution& on) override {
    const ScopedDevice device(device_);
    CudaBatch& to = static_cast<CudaBatch&>(batch);
    std::fill(to.host.begin(), to.host.end(), SequenceStep());
    std::copy(steps.begin(), steps.end(), to.host.begin());
    return ToAbsl(to.steps.CopyFrom(to.host.data(), StreamOf(on)));
  }

  absl::Status SetBlocks(int slot, int first, absl::Span<const int32_t> pages,
                         const Execution& on) override {
    if (pages.empty()) return absl::OkStatus();
    const ScopedDevice device(device_);
    return Checked(
        cudaMemcpyAsync(block_table() + int64_t{slot} * max_blocks_ + first,
                        pages.data(), pages.size() * sizeof(int32_t),
                        cudaMemcpyHostToDevice, StreamOf(on)),
        "writing the block table");
  }

  absl::Status EditPages(absl::Span<const PageEdit> edits,
                         const Execution& on) override {
    std::vector<cuda::ItemEdit> items;
    for (const PageEdit& edit : edits)
      items.push_back({edit.page, edit.source});
    return EditItems(page_pools_, items, on);
  }

  absl::Status CopySidecars(const SequenceStep& state, int to,
                            const Execution& on) override {
    return EditItems(sidecar_pools_, {{to, state.slot}}, on);
  }

  absl::Status ClearSidecars(int slot, const Execution& on) override {
    return EditItems(sidecar_pools_, {{slot, -1}}, on);
  }

  int tensor_alignment() const override { return kAlignment; }
  int max_single_tokens() const override { return kSingleTokens; }

  // Kernels find bad values as they store them; see TakeFault.
  BadCacheValue FindBadInput(int, absl::Span<const SequenceStep>,
                             const ConstHeads&, const ConstHeads&,
                             const Execution&) const override {
    return {};
  }

  absl::Status Append(int layer, const BackendBatch& batch,
                      const ConstHeads& keys, const ConstHeads& values,
                      const Execution& on) override {
    const ScopedDevice device(device_);
    const CudaBatch& step = static_cast<const CudaBatch&>(batch);
    cuda::AppendLaunch launch;
    launch.formats = &formats_;
    launch.layer = layers_[layer].view;
    launch.steps = step.steps.data();
    launch.num_steps = static_cast<int>(step.host.size());
    launch.max_tokens = step.max_tokens;
    launch.keys = keys;
    launch.values = values;
    launch.fault = faults_.data() + layer;
    return ToAbsl(cuda::LaunchAppend(launch, StreamOf(on)));
  }

  absl::Status Attend(int layer, const BackendBatch& batch,
                      const AttentionParams& params, const ConstHeads& queries,
                      const MutableHeads& out, const Execution& on) override {
    const ScopedDevice device(device_);
    const CudaBatch& step = static_cast<const CudaBatch&>(batch);
    cuda::AttentionLaunch launch;
    launch.formats = &formats_;
    launch.layer = layers_[layer].view;
    launch.steps = step.steps.data();
    launch.num_steps = static_cast<int>(step.host.size());
    launch.max_queries = step.max_tokens;
    launch.params = params;
    launch.queries = queries;
    launch.out = out;
    launch.num_ctas = num_ctas_;
    launch.workspace = step.workspace.data();
    launch.workspace_bytes = step.workspace.size();
    return ToAbsl(cuda::LaunchAttention(launch, StreamOf(on)));
  }

  absl::Status Gather(int layer, const SequenceStep& state, int first,
                      int count, const MutableHeads& keys,
                      const MutableHeads& values,
                      const Execution& on) const override {
    const ScopedDevice device(device_);
    cuda::GatherLaunch launch;
    launch.formats = &formats_;
    launch.layer = layers_[layer].view;
    launch.state = state;
    launch.first = first;
    launch.count = count;
    launch.keys = keys;
    launch.values = values;
    return ToAbsl(cuda::LaunchGather(launch, StreamOf(on)));
  }

  absl::StatusOr<BadCacheValue> TakeFault(const Execution& on) override {
    const ScopedDevice device(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<cuda::FaultWord> words(host_faults_.size());
    absl::Status status = ToAbsl(faults_.CopyTo(words.data(), StreamOf(on)));
    if (status.ok()) {
      status = ToAbsl(faults_.CopyFrom(host_faults_.data(), StreamOf(on)));
    }
    if (status.ok()) {
      status = Checked(cudaStreamSynchronize(StreamOf(on)),
                       "waiting for the stream");
    }
    if (!status.ok()) return status;
    for (size_t layer = 0; layer < words.size(); ++layer) {
      if (words[layer] == cuda::kNoFault) continue;
      return BadValueOf(static_cast<int>(layer),
                        cuda::PlaceOfFault(words[layer]));
    }
    return BadCacheValue();
  }

  absl::Status CopyPageOut(int layer, int32_t page, uint8_t* out,
                           const Execution& on) const override {
    const LayerMemory& memory = layers_[layer].view.memory;
    return CopyOut(memory.pages + page * memory.page_bytes, memory.page_bytes,
                   out, on);
  }
  absl::Status CopyPageIn(int layer, int32_t page, const uint8_t* in,
                          const Execution& on) override {
    const LayerMemory& memory = layers_[layer].view.memory;
    return CopyIn(in, memory.page_bytes,
                  memory.pages + page * memory.page_bytes, on);
  }
  absl::Status CopySidecarOut(int layer, int slot, int64_t offset,
                              int64_t count, uint8_t* out,
                              const Execution& on) const override {
    const LayerMemory& memory = layers_[layer].view.memory;
    return CopyOut(memory.sidecars + slot * memory.sidecar_bytes + offset,
                   count, out, on);
  }
  absl::Status CopySidecarIn(int layer, int slot, int64_t offset, int64_t count,
                             const uint8_t* in, const Execution& on) override {
    const LayerMemory& memory = layers_[layer].view.memory;
    return CopyIn(in, count,
                  memory.sidecars + slot * memory.sidecar_bytes + offset, on);
  }

  const uint8_t* HostPage(int, int32_t) const override { return nullptr; }

  int64_t ReservedBytes() const override {
    int64_t bytes = static_cast<int64_t>(block_table_.size());
    for (const Layer& layer : layers_) {
      bytes += static_cast<int64_t>(layer.pages.size() + layer.sidecars.size());
    }
    return bytes;
  }

  bool gives_memory_back() const override { return false; }
  void ReleasePages(absl::Span<const int32_t>) override {}

 private:
  struct Layer {
    DeviceBuffer<uint8_t> pages;
    DeviceBuffer<uint8_t> sidecars;
    DeviceBuffer<GroupPlace> groups;
    DeviceBuffer<int32_t> formats;
    DeviceBuffer<float> means;  // empty: none
    cuda::PagedLayer view;
  };

  int32_t* block_table() const {
    return reinterpret_cast<int32_t*>(block_table_.data());
  }

  absl::Status InitLayer(int index, const LayerLayout& layout,
                         const KvCacheOptions& options, FormatList& formats) {
    Layer& layer = layers_[index];
    const LayerPlaces places =
        ComputeLayerPlaces(config_, layout, index, options.max_tokens);
    const int groups = static_cast<int>(places.groups.size());
    std::vector<int32_t> format_of;
    for (int g = 0; g < groups; ++g) {
      format_of.push_back(
          formats.Add(config_.groups[index * groups + g],
                      g % 2 == 0 ? Tensor::kKey : Tensor::kValue));
    }
    const int64_t page_bytes = static_cast<int64_t>(layout.page_bytes);
    absl::Status status =
        AllocateZeros(options.num_pages * page_bytes, layer.pages);
    if (status.ok()) {
      status = AllocateZeros(options.max_sequences * places.sidecar_bytes,
                             layer.sidecars);
    }
    if (status.ok()) status = Upload(places.groups, layer.groups);
    if (status.ok()) status = Upload(format_of, layer.formats);
    if (status.ok() && !config_.means.empty()) {
      const size_t count =
          static_cast<size_t>(groups) * config_.geometry.head_dim;
      const auto first = config_.means.begin() + index * count;
      status = Upload(std::vector<float>(first, first + count), layer.means);
    }
    layer.view.memory = {.pages = layer.pages.data(),
                         .sidecars = layer.sidecars.data(),
                         .block_table = block_table(),
                         .groups = layer.groups.data(),
                         .means = layer.means.data(),
                         .page_bytes = page_bytes,
                         .sidecar_bytes = places.sidecar_bytes,
                         .max_blocks = max_blocks_,
                         .kv_heads = config_.geometry.kv_heads,
                         .head_dim = config_.geometry.head_dim,
                         .page_tokens = config_.page_tokens,
                         .sink_tokens = config_.sink_tokens,
                         .window = config_.window};
    layer.view.formats = layer.formats.data();
    return status;
  }

  absl::Status InitPools() {
    std::vector<cuda::MemoryPool> pages, sidecars;
    for (const Layer& layer : layers_) {
      pages.push_back({layer.pages.data(), layer.view.memory.page_bytes});
      sidecars.push_back(
          {layer.sidecars.data(), layer.view.memory.sidecar_bytes});
    }
    absl::Status status = Upload(pages, page_pools_);
    if (status.ok()) status = Upload(sidecars, sidecar_pools_);
    return status;
  }

  absl::Status EditItems(const DeviceBuffer<cuda::MemoryPool>& pools,
                         const std::vector<cuda::ItemEdit>& items,
                         const Execution& on) {
    const ScopedDevice device(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t done = 0; done < items.size(); done += kMaxEdits) {
      const size_t count = std::min<size_t>(kMaxEdits, items.size() - done);
      absl::Status status =
          Checked(cudaMemcpyAsync(edits_.data(), items.data() + done,
                                  count * sizeof(cuda::ItemEdit),
                                  cudaMemcpyHostToDevice, StreamOf(on)),
                  "writing page edits");
      if (!status.ok()) return status;
      cuda::EditLaunch launch;
      launch.pools = pools.data();
      launch.num_pools = static_cast<int>(pools.size());
      launch.edits = edits_.data();
      launch.num_edits = static_cast<int>(count);
      status = ToAbsl(cuda::LaunchEdits(launch, StreamOf(on)));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  BadCacheValue BadValueOf(int layer, const cuda::FaultPlace& place) const {
    const int groups = config_.geometry.kv_heads * 2;
    const int group = static_cast<int>(place.task) % groups;
    return {static_cast<int>(place.task) / groups,
            layer,
            group / 2,
            group % 2 == 0 ? Tensor::kKey : Tensor::kValue,
            static_cast<int>(place.row),
            static_cast<int>(place.channel),
            0};
  }

  absl::Status CopyOut(const uint8_t* from, int64_t bytes, uint8_t* to,
                       const Execution& on) const {
    const ScopedDevice device(device_);
    return Checked(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                                   cudaMemcpyDeviceToHost, StreamOf(on)),
                   "copying out of the cache");
  }
  absl::Status CopyIn(const uint8_t* from, int64_t bytes, uint8_t* to,
                      const Execution& on) {
    const ScopedDevice device(device_);
    return Checked(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                                   cudaMemcpyHostToDevice, StreamOf(on)),
                   "copying into the cache");
  }

  const KvCacheConfig config_;
  const int device_;
  int num_ctas_ = 0;
  int32_t max_blocks_ = 0;
  std::vector<Layer> layers_;
  DeviceBuffer<uint8_t> block_table_;  // int32_t [max_sequences, max_blocks]
  cuda::FormatTable formats_;
  DeviceBuffer<cuda::MemoryPool> page_pools_;     // [layers]
  DeviceBuffer<cuda::MemoryPool> sidecar_pools_;  // [layers]
  DeviceBuffer<cuda::FaultWord> faults_;          // [layers]
  std::vector<cuda::FaultWord> host_faults_;      // [layers] of kNoFault
  std::mutex mutex_;  // guards edits_ and faults_ between host threads
  DeviceBuffer<cuda::ItemEdit> edits_;  // [kMaxEdits]
};

absl::Status CheckOrdinal(int ordinal) {
  const cuda::Status found = cuda::CheckDevice();
  if (!found.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("a CUDA device was asked for: ", found.message()));
  }
  int count = 0;
  absl::Status status = Checked(cudaGetDeviceCount(&count), "counting devices");
  if (status.ok() && (ordinal < 0 || ordinal >= count)) {
    status = absl::FailedPreconditionError(
        absl::StrCat("CUDA device ", ordinal, " was asked for; found: ", count,
                     " (0 to ", count - 1, ")"));
  }
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CacheBackend>> MakeCudaBackend(
    const KvCacheConfig& config, const KvLayout& layout,
    const KvCacheOptions& options, int max_blocks) {
  absl::Status status = CheckOrdinal(options.device.ordinal);
  if (!status.ok()) return status;
  auto backend = std::make_unique<CudaBackend>(config, options.device.ordinal);
  status = backend->Init(layout, options, max_blocks);
  if (!status.ok()) return status;
  return backend;
}

}  // namespace ratequant::kv
