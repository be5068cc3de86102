#include "tests/gpu/paged_bench.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "kernels/cuda/paged_append.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/paged_gather.h"
#include "tests/gpu/bench_util.h"
#include "tests/kernels/cuda/upload.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kHeadDim = 128;
constexpr int kKvHeads = 8;
constexpr int kQueryHeads = 32;
constexpr int kPageTokens = 32;
constexpr int kSinks = 4;
constexpr int kWindow = 32;
constexpr int kChunk = 16384;  // tokens of an append or a gather
constexpr int kCtasPerSm = 4;

// The formats of a layer's groups.
struct Map {
  const char* name;
  std::vector<FormatSpec> groups;
};

Map MakeMap(const char* name, QuantizerKind kind,
            const std::vector<int>& widths) {
  Map map{name, {}};
  for (int head = 0; head < kKvHeads; ++head) {
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      FormatSpec spec;
      spec.quantizer.kind = kind;
      spec.tensor = tensor;
      spec.width = widths[head % widths.size()];
      map.groups.push_back(spec);
    }
  }
  return map;
}

// One layer with sequences of one length.
class Layer {
 public:
  Layer(const Map& map, int batch, int context)
      : batch_(batch), context_(context) {
    Require(FormatTable::Create(kHeadDim, kPageTokens, map.groups, nullptr,
                                &formats_));
    LayerMemory& memory = layer_.memory;
    std::vector<GroupPlace> groups;
    std::vector<int32_t> index, blocks;
    for (size_t g = 0; g < map.groups.size(); ++g) {
      GroupPlace place;
      place.section_offset = static_cast<uint32_t>(memory.page_bytes);
      place.sidecar_offset = memory.sidecar_bytes;
      const bool kivi_key =
          map.groups[g].quantizer.kind == QuantizerKind::kKivi &&
          map.groups[g].tensor == Tensor::kKey && map.groups[g].width != 16;
      place.block_tokens = kivi_key ? map.groups[g].quantizer.group_size : 1;
      place.ring_tokens = kWindow + place.block_tokens - 1;
      memory.page_bytes += static_cast<int64_t>(
          formats_.layout(static_cast<int>(g)).section_bytes);
      memory.sidecar_bytes +=
          int64_t{2} * kHeadDim * (kSinks + place.ring_tokens);
      groups.push_back(place);
      index.push_back(static_cast<int32_t>(g));
    }
    const int pages = context / kPageTokens + 1;
    for (int i = 0; i < batch * pages; ++i) {
      // Pages of a sequence lie apart, as in a pool that is in use.
      blocks.push_back(i % pages * batch + i / pages);
    }
    Require(pages_.Allocate(blocks.size() * memory.page_bytes));
    Require(sidecars_.Allocate(batch * memory.sidecar_bytes));
    Require(Upload(groups, &groups_));
    Require(Upload(index, &index_));
    Require(Upload(blocks, &blocks_));
    Require(Upload<FaultWord>({kNoFault}, &fault_));
    memory.pages = pages_.data();
    memory.sidecars = sidecars_.data();
    memory.block_table = blocks_.data();
    memory.groups = groups_.data();
    memory.max_blocks = pages;
    memory.kv_heads = kKvHeads;
    memory.head_dim = kHeadDim;
    memory.page_tokens = kPageTokens;
    memory.sink_tokens = kSinks;
    memory.window = kWindow;
    layer_.formats = index_.data();
    Require(
        Upload(MakeHalves(size_t{2} * kKvHeads * kChunk * kHeadDim), &rows_));
  }

  // Whether a chunk fits behind another one.
  bool HasChunks() const { return context_ >= 2 * kChunk; }

  // Fills every sequence; gives the milliseconds of a later chunk, 0 where
  // there is none.
  double Append() {
    double ms = 0;
    for (int slot = 0; slot < batch_; ++slot) {
      for (int begin = 0; begin < context_; begin += kChunk) {
        const int count = std::min(kChunk, context_ - begin);
        SetSteps({{slot, begin, count}});
        Require(LaunchAppend(AppendOf(count), nullptr));
        if (slot == 0 && begin == kChunk && HasChunks()) {
          // Again and again: the same bytes to the same places.
          ms = MedianMs(
              [&] { Require(LaunchAppend(AppendOf(count), nullptr)); });
        }
      }
    }
    std::vector<FaultWord> fault;
    Require(Download(fault_, &fault));
    Require(StatusOfFault(fault[0]));
    return ms;
  }

  // Milliseconds of a chunk, 0 where there is none.
  double Gather() {
    if (!HasChunks()) return 0;
    GatherLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.state = {0, context_};
    launch.first = kSinks;
    launch.count = kChunk;
    launch.keys = {rows_.data(), DType::kFloat16, kChunk * kHeadDim, kHeadDim};
    launch.values = {rows_.data() + kKvHeads * kChunk * kHeadDim,
                     DType::kFloat16, kChunk * kHeadDim, kHeadDim};
    return MedianMs([&] { Require(LaunchGather(launch, nullptr)); });
  }

  double Attend() {
    int device = 0, sms = 0;
    Require(cudaGetDevice(&device));
    Require(
        cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    std::vector<SequenceStep> steps;
    for (int slot = 0; slot < batch_; ++slot) {
      steps.push_back({slot, context_ - 1, 1, slot});
    }
    SetSteps(steps);
    DeviceBuffer<uint16_t> queries, out;
    const int64_t stride = int64_t{batch_} * kHeadDim;
    Require(Upload(MakeHalves(kQueryHeads * stride), &queries));
    Require(out.Allocate(kQueryHeads * stride));
    AttentionLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.steps = steps_.data();
    launch.num_steps = batch_;
    launch.max_queries = 1;
    launch.params.query_heads = kQueryHeads;
    launch.params.softmax_scale = 0.088f;
    launch.queries = {queries.data(), DType::kFloat16, stride, kHeadDim};
    launch.out = {out.data(), DType::kFloat16, stride, kHeadDim};
    launch.num_ctas = sms * kCtasPerSm;
    launch.workspace_bytes = AttentionWorkspaceBytes(
        batch_, kKvHeads, kHeadDim, kQueryHeads, 1, launch.num_ctas);
    DeviceBuffer<uint8_t> workspace;
    Require(workspace.Allocate(launch.workspace_bytes));
    launch.workspace = workspace.data();
    return MedianMs([&] { Require(LaunchAttention(launch, nullptr)); });
  }

  // Bytes that a token's packed rows have, a share of the parameters included.
  double TokenBytes() const {
    return static_cast<double>(layer_.memory.page_bytes) / kPageTokens;
  }
  // What attention must read and write: packed tokens, fp16 rows, Q and output.
  double AttentionBytes() const {
    const double packed = (context_ - kWindow) * TokenBytes();
    return batch_ * (packed + static_cast<double>(layer_.memory.sidecar_bytes) +
                     4.0 * kQueryHeads * kHeadDim);
  }

 private:
  void SetSteps(const std::vector<SequenceStep>& steps) {
    Require(Upload(steps, &steps_));
  }

  AppendLaunch AppendOf(int count) {
    AppendLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.steps = steps_.data();
    launch.num_steps = 1;
    launch.max_tokens = count;
    launch.keys = {rows_.data(), DType::kFloat16, kChunk * kHeadDim, kHeadDim};
    launch.values = {rows_.data() + kKvHeads * kChunk * kHeadDim,
                     DType::kFloat16, kChunk * kHeadDim, kHeadDim};
    launch.fault = fault_.data();
    return launch;
  }

  const int batch_;
  const int context_;
  FormatTable formats_;
  PagedLayer layer_;
  DeviceBuffer<uint8_t> pages_;
  DeviceBuffer<uint8_t> sidecars_;
  DeviceBuffer<GroupPlace> groups_;
  DeviceBuffer<int32_t> index_;
  DeviceBuffer<int32_t> blocks_;
  DeviceBuffer<SequenceStep> steps_;
  DeviceBuffer<FaultWord> fault_;
  DeviceBuffer<uint16_t> rows_;  // K, then V: [kv_heads, kChunk, head_dim]
};

double MeasureCopy() {
  constexpr size_t kBytes = size_t{1} << 29;
  DeviceBuffer<uint8_t> from, to;
  Require(from.Allocate(kBytes));
  Require(to.Allocate(kBytes));
  return CopyBandwidth(from.data(), to.data(), kBytes);
}

std::vector<Map> Maps() {
  return {
      // First: what the others are compared with.
      MakeMap("fp16", QuantizerKind::kRtn, {16}),
      MakeMap("turboquant 4", QuantizerKind::kTurboquant, {4}),
      MakeMap("turboquant 2-6, 4 on average", QuantizerKind::kTurboquant,
              {2, 6, 3, 5, 4, 4, 2, 6}),
      MakeMap("tcq 4", QuantizerKind::kTcq, {4}),
      MakeMap("tcq 2-6, 4 on average", QuantizerKind::kTcq,
              {2, 6, 3, 5, 4, 4, 2, 6}),
      MakeMap("kivi 4", QuantizerKind::kKivi, {4}),
      MakeMap("kivi 2-6, 4 on average", QuantizerKind::kKivi,
              {2, 6, 3, 5, 4, 4, 2, 6}),
      MakeMap("quarot 4", QuantizerKind::kQuarot, {4}),
      MakeMap("rtn 8", QuantizerKind::kRtn, {8}),
  };
}

}  // namespace

void BenchPaged() {
  struct Size {
    int batch, context;
  };
  const Size sizes[] = {{1, 4096},  {1, 32768}, {1, 131072}, {8, 4096},
                        {8, 32768}, {64, 4096}, {64, 32768}};
  const double copy = MeasureCopy();
  std::printf(
      "\npaged cache, one layer: %d KV heads, %d query heads, head_dim %d, "
      "pages of %d tokens; %d CTAs an SM; append and gather in chunks of %d "
      "tokens\n",
      kKvHeads, kQueryHeads, kHeadDim, kPageTokens, kCtasPerSm, kChunk);
  std::printf("%6s %8s %-30s %10s %8s %8s %10s %8s %10s %8s\n", "batch",
              "context", "map", "attend ms", "of copy", "x fp16", "append ms",
              "of copy", "gather ms", "of copy");
  for (const Size& size : sizes) {
    double fp16_ms = 0;
    for (const Map& map : Maps()) {
      Layer layer(map, size.batch, size.context);
      const double append_ms = layer.Append();
      const double attend_ms = layer.Attend();
      const double gather_ms = layer.Gather();
      if (fp16_ms == 0) fp16_ms = attend_ms;
      const double chunk_bytes =
          kChunk * (layer.TokenBytes() + 4.0 * kKvHeads * kHeadDim);
      const auto of_copy = [&](double bytes, double ms) {
        return 100 * bytes / ms / copy;
      };
      std::printf("%6d %8d %-30s %10.4f %7.0f%% %7.2fx", size.batch,
                  size.context, map.name, attend_ms,
                  of_copy(layer.AttentionBytes(), attend_ms),
                  fp16_ms / attend_ms);
      if (layer.HasChunks()) {
        std::printf(" %10.4f %7.0f%% %10.4f %7.0f%%", append_ms,
                    of_copy(chunk_bytes, append_ms), gather_ms,
                    of_copy(chunk_bytes, gather_ms));
      }
      std::printf("\n");
    }
  }
}

}  // namespace ratequant::kv::cuda
