#include "kernels/cache/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/cache/codec_set.h"
#include "kernels/cache/group_rows.h"
#include "kernels/cache/half_rows.h"
#include "kernels/cpu/paged_attention.h"
#include "kernels/quantizers/codec_base.h"

namespace ratequant::kv {
namespace {

struct CpuBatch final : BackendBatch {
  std::vector<SequenceStep> steps;
  std::unique_ptr<PagedAttention> attention;  // null where it isn't possible
};

absl::Span<const SequenceStep> StepsOf(const BackendBatch& batch) {
  return static_cast<const CpuBatch&>(batch).steps;
}

// Row `row` of a head.
template <typename Heads>
auto HeadRows(const Heads& heads, int head, int64_t row) {
  const int64_t offset = (head * heads.head_stride + row * heads.row_stride) *
                         static_cast<int64_t>(ElementSize(heads.dtype));
  if constexpr (std::is_same_v<Heads, ConstHeads>) {
    return ConstRows{static_cast<const uint8_t*>(heads.data) + offset,
                     heads.dtype, heads.row_stride};
  } else {
    return MutableRows{static_cast<uint8_t*>(heads.data) + offset, heads.dtype,
                       heads.row_stride};
  }
}

void RunLoop(const Execution& on, int count,
             absl::FunctionRef<void(int)> iteration) {
  if (on.loops != nullptr && count > 1) {
    on.loops->Run(count, iteration);
    return;
  }
  for (int i = 0; i < count; ++i) iteration(i);
}

// Of [kv_heads * 2, head_dim]; null: none.
const float* MeansOfLayer(const KvCacheConfig& config, size_t layer) {
  if (config.means.empty()) return nullptr;
  return config.means.data() +
         layer * config.means.size() / config.geometry.layers;
}

// Keeps the error of the lowest iteration of a loop.
class FirstError {
 public:
  void Add(int iteration, absl::Status status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (iteration >= iteration_) return;
    iteration_ = iteration;
    status_ = std::move(status);
  }
  absl::Status Take() { return std::move(status_); }

 private:
  std::mutex mutex_;
  int iteration_ = std::numeric_limits<int>::max();
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CpuBackend>> CpuBackend::Create(
    const KvCacheConfig& config, const KvLayout& layout,
    const KvCacheOptions& options, int max_blocks) {
  std::unique_ptr<CpuBackend> backend(new CpuBackend(config, options.backend));
  backend->max_blocks_ = max_blocks;
  absl::StatusOr<AddressSpace> table = AddressSpace::Reserve(
      int64_t{options.max_sequences} * max_blocks * sizeof(int32_t));
  if (!table.ok()) return table.status();
  backend->block_table_ = *std::move(table);
  CodecSet codecs(backend->config_, options.backend);
  backend->layers_.resize(layout.layers.size());
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    Layer& layer = backend->layers_[i];
    const int64_t page_bytes =
        static_cast<int64_t>(layout.layers[i].page_bytes);
    layer.places = ComputeLayerPlaces(config, layout.layers[i],
                                      static_cast<int>(i), options.max_tokens);
    absl::StatusOr<std::vector<std::shared_ptr<const Codec>>> of_layer =
        codecs.OfLayer(static_cast<int>(i));
    if (!of_layer.ok()) return of_layer.status();
    layer.codecs = *std::move(of_layer);
    for (const auto& codec : layer.codecs) {
      layer.plans.push_back(PlanOf(*codec));
    }
    absl::StatusOr<AddressSpace> pages =
        AddressSpace::Reserve(options.num_pages * page_bytes);
    if (!pages.ok()) return pages.status();
    layer.pages = *std::move(pages);
    absl::StatusOr<AddressSpace> sidecars = AddressSpace::Reserve(
        options.max_sequences * layer.places.sidecar_bytes);
    if (!sidecars.ok()) return sidecars.status();
    layer.sidecars = *std::move(sidecars);
    layer.memory = {.pages = layer.pages.data(),
                    .sidecars = layer.sidecars.data(),
                    .block_table = reinterpret_cast<const int32_t*>(
                        backend->block_table_.data()),
                    .groups = layer.places.groups.data(),
                    .means = MeansOfLayer(backend->config_, i),
                    .page_bytes = page_bytes,
                    .sidecar_bytes = layer.places.sidecar_bytes,
                    .max_blocks = max_blocks,
                    .kv_heads = config.geometry.kv_heads,
                    .head_dim = config.geometry.head_dim,
                    .page_tokens = config.page_tokens,
                    .sink_tokens = config.sink_tokens,
                    .window = config.window};
  }
  return backend;
}

absl::StatusOr<std::unique_ptr<BackendBatch>> CpuBackend::MakeBatch(
    int max_entries, int max_tokens) const {
  auto batch = std::make_unique<CpuBatch>();
  batch->steps.reserve(max_entries);
  const KvGeometry& g = config_.geometry;
  if (g.query_heads == 0 || max_tokens > kMaxDecodeQueries) return batch;
  absl::StatusOr<std::unique_ptr<PagedAttention>> attention =
      PagedAttention::Create(
          {.query_heads = g.query_heads,
           .kv_heads = g.kv_heads,
           .head_dim = g.head_dim,
           .max_entries = max_entries,
           .max_rows = max_entries * max_tokens,
           .max_threads = std::max(
               1, static_cast<int>(std::thread::hardware_concurrency())),
           .backend = backend_});
  if (!attention.ok()) return attention.status();
  batch->attention = *std::move(attention);
  return batch;
}

absl::Status CpuBackend::SetSteps(absl::Span<const SequenceStep> steps,
                                  BackendBatch& batch, const Execution&) {
  static_cast<CpuBatch&>(batch).steps.assign(steps.begin(), steps.end());
  return absl::OkStatus();
}

absl::Status CpuBackend::SetBlocks(int slot, int first,
                                   absl::Span<const int32_t> pages,
                                   const Execution&) {
  int32_t* const row = reinterpret_cast<int32_t*>(block_table_.data()) +
                       int64_t{slot} * max_blocks_;
  std::copy(pages.begin(), pages.end(), row + first);
  return absl::OkStatus();
}

absl::Status CpuBackend::EditPages(absl::Span<const PageEdit> edits,
                                   const Execution& on) {
  RunLoop(on, static_cast<int>(layers_.size()), [&](int layer) {
    const size_t bytes = static_cast<size_t>(layers_[layer].memory.page_bytes);
    for (const PageEdit& edit : edits) {
      if (edit.source < 0) {
        std::memset(Page(layer, edit.page), 0, bytes);
      } else {
        std::memcpy(Page(layer, edit.page), Page(layer, edit.source), bytes);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::CopySidecars(const SequenceStep& state, int to,
                                      const Execution& on) {
  const int64_t row_bytes = int64_t{2} * config_.geometry.head_dim;
  RunLoop(on, static_cast<int>(layers_.size()), [&](int layer) {
    for (const GroupPlace& place : layers_[layer].places.groups) {
      for (const SidecarRows& rows :
           LiveSidecarRows(place, config_, state.begin, state.packed_floor)) {
        const int64_t offset = place.sidecar_offset + rows.row * row_bytes;
        std::memcpy(Sidecar(layer, to) + offset,
                    Sidecar(layer, state.slot) + offset,
                    static_cast<size_t>(rows.count * row_bytes));
      }
    }
  });
  return absl::OkStatus();
}

BadCacheValue CpuBackend::FindBadInput(int layer,
                                       absl::Span<const SequenceStep> steps,
                                       const ConstHeads& keys,
                                       const ConstHeads& values,
                                       const Execution& on) const {
  const LayerMemory& memory = layers_[layer].memory;
  const int groups = memory.kv_heads * 2;
  std::mutex mutex;
  BadCacheValue first;
  RunLoop(on, static_cast<int>(steps.size()) * groups, [&](int i) {
    const int entry = i / groups, group = i % groups;
    const SequenceStep& step = steps[entry];
    const BadValue bad = FindBadValue(
        HeadRows(group % 2 == 0 ? keys : values, group / 2, step.first_row),
        step.count, memory.head_dim, memory.MeanOf(group));
    if (bad.row < 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    const Tensor tensor = group % 2 == 0 ? Tensor::kKey : Tensor::kValue;
    const auto place = [](const BadCacheValue& v) {
      return std::tuple(v.entry, v.head, v.tensor);
    };
    const BadCacheValue found = {
        entry,       layer,    group / 2, tensor, static_cast<int>(bad.row),
        bad.channel, bad.value};
    if (first.entry < 0 || place(found) < place(first)) first = found;
  });
  return first;
}

absl::Status CpuBackend::Append(int layer, const BackendBatch& batch,
                                const ConstHeads& keys,
                                const ConstHeads& values, const Execution& on) {
  const Layer& to = layers_[layer];
  const absl::Span<const SequenceStep> steps = StepsOf(batch);
  const int groups = to.memory.kv_heads * 2;
  // Calls work(rows of a group, step, input of the group) for all of them.
  const auto for_all = [&](const auto& work) {
    RunLoop(on, static_cast<int>(steps.size()) * groups, [&](int i) {
      const int group = i % groups;
      const SequenceStep& step = steps[i / groups];
      work(i, GroupRows(to.memory, *to.codecs[group], group, step.slot), step,
           HeadRows(group % 2 == 0 ? keys : values, group / 2, step.first_row));
    });
  };
  FirstError error;
  for_all([&](int i, const GroupRows& rows, const SequenceStep& step,
              const ConstRows& input) {
    absl::Status status = rows.Pack(step, input);
    if (!status.ok()) error.Add(i, std::move(status));
  });
  absl::Status status = error.Take();
  if (status.ok()) {
    for_all([](int, const GroupRows& rows, const SequenceStep& step,
               const ConstRows& input) { rows.Store(step, input); });
  } else {
    for_all([](int, const GroupRows& rows, const SequenceStep& step,
               const ConstRows&) { rows.Unpack(step); });
  }
  return status;
}

absl::Status CpuBackend::Attend(int layer, const BackendBatch& batch,
                                const AttentionParams& params,
                                const ConstHeads& queries,
                                const MutableHeads& out, const Execution& on) {
  static_cast<const CpuBatch&>(batch).attention->Run(
      layers_[layer].memory, layers_[layer].plans, StepsOf(batch), params,
      queries, out, on.loops);
  return absl::OkStatus();
}

absl::Status CpuBackend::Gather(int layer, const SequenceStep& state, int first,
                                int count, const MutableHeads& keys,
                                const MutableHeads& values,
                                const Execution& on) const {
  const Layer& from = layers_[layer];
  FirstError error;
  RunLoop(on, from.memory.kv_heads * 2, [&](int group) {
    const MutableHeads& heads = group % 2 == 0 ? keys : values;
    if (heads.data == nullptr) return;
    absl::Status status =
        GroupRows(from.memory, *from.codecs[group], group, state.slot)
            .Gather(state, first, count, HeadRows(heads, group / 2, 0));
    if (!status.ok()) error.Add(group, std::move(status));
  });
  return error.Take();
}

absl::Status CpuBackend::CopyPageOut(int layer, int32_t page, uint8_t* out,
                                     const Execution&) const {
  std::memcpy(out, Page(layer, page), layers_[layer].memory.page_bytes);
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyPageIn(int layer, int32_t page, const uint8_t* in,
                                    const Execution&) {
  std::memcpy(Page(layer, page), in, layers_[layer].memory.page_bytes);
  return absl::OkStatus();
}

absl::Status CpuBackend::CopySidecarOut(int layer, int slot, int64_t offset,
                                        int64_t count, uint8_t* out,
                                        const Execution&) const {
  std::memcpy(out, Sidecar(layer, slot) + offset, static_cast<size_t>(count));
  return absl::OkStatus();
}

absl::Status CpuBackend::CopySidecarIn(int layer, int slot, int64_t offset,
                                       int64_t count, const uint8_t* in,
                                       const Execution&) {
  std::memcpy(Sidecar(layer, slot) + offset, in, static_cast<size_t>(count));
  return absl::OkStatus();
}

absl::Status CpuBackend::ClearSidecars(int slot, const Execution&) {
  for (const Layer& layer : layers_) {
    layer.sidecars.Clear(slot * layer.memory.sidecar_bytes,
                         layer.memory.sidecar_bytes);
  }
  return absl::OkStatus();
}

int64_t CpuBackend::ReservedBytes() const {
  int64_t bytes = block_table_.bytes();
  for (const Layer& layer : layers_) {
    bytes += layer.pages.bytes() + layer.sidecars.bytes();
  }
  return bytes;
}

void CpuBackend::ReleasePages(absl::Span<const int32_t> pages) {
  for (const Layer& layer : layers_) {
    for (size_t first = 0; first < pages.size();) {
      size_t end = first + 1;
      while (end < pages.size() && pages[end] == pages[end - 1] + 1) ++end;
      layer.pages.Clear(
          pages[first] * layer.memory.page_bytes,
          static_cast<int64_t>(end - first) * layer.memory.page_bytes);
      first = end;
    }
  }
}

}  // namespace ratequant::kv
