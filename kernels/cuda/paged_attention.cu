#include <algorithm>
#include <bit>
#include <string>

#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/paged_attention.cuh"
#include "kernels/cuda/paged_attention.h"

namespace ratequant::kv::cuda {
namespace {

// Query rows that share an unpacked token; more are groups of this many, which
// work on the same bytes side by side.
constexpr int kMaxRows = 8;

int RowGroup(int rows) {
  return static_cast<int>(
      std::bit_ceil(static_cast<unsigned>(std::min(rows, kMaxRows))));
}

// The parts of a workspace, one behind the other, in multiples of 16 bytes.
class Workspace {
 public:
  explicit Workspace(void* data) : data_(static_cast<uint8_t*>(data)) {}

  template <class T>
  T* Take(int64_t count) {
    T* const part =
        data_ == nullptr ? nullptr : reinterpret_cast<T*>(data_ + bytes_);
    bytes_ += (count * sizeof(T) + 15) / 16 * 16;
    return part;
  }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* const data_;
  size_t bytes_ = 0;
};

// Gives the batch its workspace; gives the bytes of it.
size_t Place(int kv_heads, int head_dim, void* data, AttentionBatch& batch) {
  Workspace workspace(data);
  const int64_t pairs = int64_t{batch.num_steps} * kv_heads;
  const int64_t rows = (2 * pairs + batch.num_ctas) * batch.rows;
  batch.share = workspace.Take<int64_t>(1);
  batch.pages_before = workspace.Take<int32_t>(batch.num_steps + 1);
  batch.head_bytes = workspace.Take<int32_t>(kv_heads + 1);
  batch.stats = workspace.Take<float>(rows * 2);
  batch.sums = workspace.Take<float>(rows * head_dim);
  return workspace.bytes();
}

// The limits of a launch as its kernels see them.
AttentionBatch MakeBatch(int num_steps, int kv_heads, int query_heads,
                         int max_queries, int num_ctas) {
  AttentionBatch batch;
  batch.num_steps = num_steps;
  batch.max_queries = max_queries;
  batch.num_ctas = num_ctas;
  batch.heads_per_kv = query_heads / kv_heads;
  const int rows = max_queries * batch.heads_per_kv;
  const int group = RowGroup(rows);
  batch.rows = (rows + group - 1) / group * group;
  return batch;
}

Status Unsupported(const std::string& name, const std::string& value,
                   const std::string& supported) {
  return InvalidArgument(name + " " + value +
                         " isn't supported; supported: " + supported);
}

Status CheckParams(const AttentionParams& params, int kv_heads) {
  if (params.query_heads < kv_heads || params.query_heads % kv_heads != 0) {
    return Unsupported("query_heads", std::to_string(params.query_heads),
                       "multiples of kv_heads, " + std::to_string(kv_heads));
  }
  if (!(params.softmax_scale > 0.0f)) {
    return Unsupported("softmax_scale", std::to_string(params.softmax_scale),
                       "above 0");
  }
  if (!(params.soft_cap >= 0.0f)) {
    return Unsupported("soft_cap", std::to_string(params.soft_cap),
                       "0 (none) and above");
  }
  if (params.sliding_window < 0) {
    return Unsupported("sliding_window", std::to_string(params.sliding_window),
                       "0 (none) and above");
  }
  return Status();
}

Status CheckLimits(const AttentionLaunch& launch) {
  if (launch.num_steps < 0) {
    return Unsupported("num_steps", std::to_string(launch.num_steps),
                       "0 and more");
  }
  if (launch.num_steps > 0 && launch.steps == nullptr) {
    return InvalidArgument("the launch's steps are null");
  }
  if (launch.max_queries < 1 || launch.max_queries > kMaxDecodeQueries) {
    return Unsupported("max_queries", std::to_string(launch.max_queries),
                       "1 to " + std::to_string(kMaxDecodeQueries));
  }
  if (launch.num_ctas < 1) {
    return Unsupported("num_ctas", std::to_string(launch.num_ctas),
                       "1 and more");
  }
  const size_t needed = AttentionWorkspaceBytes(
      launch.num_steps, launch.layer.memory.kv_heads,
      launch.layer.memory.head_dim, launch.params.query_heads,
      launch.max_queries, launch.num_ctas);
  const bool aligned = reinterpret_cast<uintptr_t>(launch.workspace) % 16 == 0;
  if (launch.workspace == nullptr || !aligned ||
      launch.workspace_bytes < needed) {
    return InvalidArgument("the workspace has " +
                           std::to_string(launch.workspace_bytes) +
                           " bytes, or is null or not a multiple of 16; " +
                           std::to_string(needed) + " bytes are needed");
  }
  return Status();
}

Status CheckAttention(const AttentionLaunch& launch) {
  const Status layer = CheckPagedLayer(launch.layer, launch.formats);
  if (!layer.ok()) return layer;
  const LayerMemory& memory = launch.layer.memory;
  const Status params = CheckParams(launch.params, memory.kv_heads);
  if (!params.ok()) return params;
  const Status limits = CheckLimits(launch);
  if (!limits.ok()) return limits;
  const Status queries = CheckHeads("queries", launch.queries, memory.head_dim);
  return queries.ok() ? CheckHeads("out", AsConst(launch.out), memory.head_dim)
                      : queries;
}

template <class Lanes, int kRows>
Status Attend(const AttentionBatch& batch, cudaStream_t stream) {
  const dim3 grid(
      batch.num_ctas + batch.num_steps * batch.layer.memory.kv_heads,
      batch.rows / kRows);
  return Launch("launching AttendKernel", &AttendKernel<Lanes, kRows>, grid,
                dim3(kSectionThreads), sizeof(AttentionShared<Lanes, kRows>),
                stream, batch);
}

template <class Lanes>
Status Run(const AttentionBatch& batch, cudaStream_t stream) {
  if (batch.num_steps == 0) return Status();
  const Status planned = Launch("launching PlanKernel", &PlanKernel, dim3(1),
                                dim3(kWarpLanes), 0, stream, batch);
  if (!planned.ok()) return planned;
  const auto attend = [&] {
    switch (RowGroup(batch.rows)) {
      case 1:
        return Attend<Lanes, 1>(batch, stream);
      case 2:
        return Attend<Lanes, 2>(batch, stream);
      case 4:
        return Attend<Lanes, 4>(batch, stream);
      default:
        return Attend<Lanes, 8>(batch, stream);
    }
  };
  const Status attended = attend();
  if (!attended.ok()) return attended;
  return Launch("launching CombineKernel", &CombineKernel<Lanes>,
                dim3(batch.num_steps * batch.layer.memory.kv_heads),
                dim3(kSectionThreads), 0, stream, batch);
}

}  // namespace

size_t AttentionWorkspaceBytes(int num_steps, int kv_heads, int head_dim,
                               int query_heads, int max_queries, int num_ctas) {
  AttentionBatch batch =
      MakeBatch(num_steps, kv_heads, query_heads, max_queries, num_ctas);
  return Place(kv_heads, head_dim, nullptr, batch);
}

Status LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream) {
  const Status checked = CheckAttention(launch);
  if (!checked.ok()) return checked;
  const LayerMemory& memory = launch.layer.memory;
  AttentionBatch batch =
      MakeBatch(launch.num_steps, memory.kv_heads, launch.params.query_heads,
                launch.max_queries, launch.num_ctas);
  Place(memory.kv_heads, memory.head_dim, launch.workspace, batch);
  batch.formats = launch.formats->device();
  batch.layer = launch.layer;
  batch.steps = launch.steps;
  batch.params = launch.params;
  batch.queries = launch.queries;
  batch.out = launch.out;
  switch (memory.head_dim) {
    case 64:
      return Run<RowLanes<8, 1>>(batch, stream);
    case 80:
    case 96:
    case 128:
      return Run<RowLanes<16, 1>>(batch, stream);
    case 256:
      return Run<RowLanes<32, 1>>(batch, stream);
    default:
      return Unsupported("head_dim", std::to_string(memory.head_dim),
                         "64, 80, 96, 128, 256");
  }
}

}  // namespace ratequant::kv::cuda
