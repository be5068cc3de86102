#ifndef RATEQUANT_KERNELS_CUDA_ATTENTION_PLAN_CUH_
#define RATEQUANT_KERNELS_CUDA_ATTENTION_PLAN_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/paged_rows.cuh"
#include "ratequant/kv/attention.h"

// How attention's work is shared out. The packed bytes that a step reads are
// laid out in one line: sequence by sequence, KV head by KV head, page by page.
// CTA c works on the pages that begin in bytes [c * share, (c + 1) * share): as
// many bytes as any other, whatever widths the heads have. What it does for one
// (sequence, head) pair is a piece. Along the line either the pair or the CTA
// of a piece is one more than that of the piece before, so pair + CTA is an
// index of its own. Sinks, ring and what is in fp16 beside them are one more
// piece for each pair.

namespace ratequant::kv::cuda {

// A launch, as its kernels get it. Everything it points to is device memory;
// what isn't const is workspace.
struct AttentionBatch {
  const SectionFormat* formats = nullptr;
  PagedLayer layer;
  const SequenceStep* steps = nullptr;  // [num_steps]
  int32_t num_steps = 0;
  int32_t max_queries = 0;
  int32_t num_ctas = 0;
  int32_t heads_per_kv = 0;  // query heads that read one KV head
  int32_t rows = 0;          // of a partial: queries * heads_per_kv, padded
  AttentionParams params;
  ConstHeads queries;
  MutableHeads out;
  int64_t* share = nullptr;         // [1]
  int32_t* pages_before = nullptr;  // [num_steps + 1]
  int32_t* head_bytes = nullptr;    // [kv_heads + 1]: bytes before a head
  float* stats = nullptr;           // [pieces, rows, 2]: largest score, sum
  float* sums = nullptr;            // [pieces, rows, head_dim], not normalised

  __device__ int pairs() const { return num_steps * layer.memory.kv_heads; }
  // Index of the piece outside the pages.
  __device__ int TailOf(int pair) const { return pairs() + num_ctas + pair; }
  __device__ int RowsOf(const SequenceStep& step) const {
    return step.count <= max_queries ? step.count * heads_per_kv : 0;
  }
};

// Pages [first, end) of a sequence.
struct PageRange {
  int first = 0;
  int end = 0;
  __device__ int count() const { return end - first; }
};

// The pages that a step reads: those with packed tokens that its first query
// may still see.
__device__ __forceinline__ PageRange PagesOf(const AttentionBatch& batch,
                                             const SequenceStep& step) {
  PageRange pages;
  if (batch.RowsOf(step) == 0) return pages;
  const LayerMemory& memory = batch.layer.memory;
  const int packed =
      PackedEnd(step.begin + step.count, memory.window, 1, step.packed_floor);
  pages.end = (packed + memory.page_tokens - 1) / memory.page_tokens;
  const int sliding = batch.params.sliding_window;
  if (sliding > 0 && step.begin + 1 > sliding) {
    pages.first =
        min((step.begin + 1 - sliding) / memory.page_tokens, pages.end);
  }
  return pages;
}

// One (sequence, KV head) pair's place on the line.
struct PairSpan {
  int64_t start = 0;
  int bytes = 0;  // of one page
  int pages = 0;

  __device__ static PairSpan Of(const AttentionBatch& batch, int step,
                                int head) {
    PairSpan span;
    const int kv_heads = batch.layer.memory.kv_heads;
    const int before = batch.pages_before[step];
    span.pages = batch.pages_before[step + 1] - before;
    span.bytes = batch.head_bytes[head + 1] - batch.head_bytes[head];
    span.start = static_cast<int64_t>(before) * batch.head_bytes[kv_heads] +
                 static_cast<int64_t>(span.pages) * batch.head_bytes[head];
    return span;
  }

  // The first of its pages that begins at or after `byte`.
  __device__ int PageAt(int64_t byte) const {
    if (byte <= start) return 0;
    const int64_t page = (byte - start + bytes - 1) / bytes;
    return page < pages ? static_cast<int>(page) : pages;
  }
  // CTAs [FirstCta, LastCta] have pages of it, each at least one: a share is
  // never less than a page. There are pages.
  __device__ int FirstCta(int64_t share) const {
    return static_cast<int>(start / share);
  }
  __device__ int LastCta(int64_t share) const {
    return static_cast<int>((start + static_cast<int64_t>(pages - 1) * bytes) /
                            share);
  }
};

// Writes the sums of value(0), ..., value(i - 1) to sums[i], up to i = count,
// with one warp; gives the last to all its lanes.
template <class Value>
__device__ int PrefixSums(int count, const Value& value, int32_t* sums) {
  const int lane = threadIdx.x;
  int total = 0;
  for (int base = 0; base < count; base += kWarpLanes) {
    const int mine = base + lane < count ? value(base + lane) : 0;
    int sum = mine;
    for (int step = 1; step < kWarpLanes; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += below;
    }
    if (base + lane < count) sums[base + lane] = total + sum - mine;
    total += __shfl_sync(kAllLanes, sum, kWarpLanes - 1);
  }
  if (lane == 0) sums[count] = total;
  return total;
}

// One warp makes the plan.
static __global__ void __launch_bounds__(kWarpLanes)
    PlanKernel(AttentionBatch batch) {
  const LayerMemory& memory = batch.layer.memory;
  const int pages = PrefixSums(
      batch.num_steps,
      [&](int step) { return PagesOf(batch, batch.steps[step]).count(); },
      batch.pages_before);
  int largest = 16;
  const int page_bytes = PrefixSums(
      memory.kv_heads,
      [&](int head) {
        int bytes = 0;
        for (int group = 2 * head; group < 2 * head + 2; ++group) {
          const SectionFormat& format =
              batch.formats[batch.layer.formats[group]];
          bytes += static_cast<int>(format.codes_offset) +
                   memory.page_tokens * static_cast<int>(format.row_bytes);
        }
        largest = max(largest, bytes);
        return bytes;
      },
      batch.head_bytes);
  for (int step = 1; step < kWarpLanes; step *= 2) {
    largest = max(largest, ShuffleXor(largest, step));
  }
  if (threadIdx.x != 0) return;
  const int64_t total = static_cast<int64_t>(pages) * page_bytes;
  const int64_t even = (total + batch.num_ctas - 1) / batch.num_ctas;
  *batch.share = even > largest ? even : largest;
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ATTENTION_PLAN_CUH_
