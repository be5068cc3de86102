#ifndef RATEQUANT_KERNELS_CPU_PAGED_ATTENTION_H_
#define RATEQUANT_KERNELS_CPU_PAGED_ATTENTION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "hwy/aligned_allocator.h"
#include "kernels/cpu/head_attention.h"
#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "kernels/quantizers/row_plan.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/execution.h"
#include "ratequant/kv/heads.h"

namespace ratequant::kv {

// Decode attention over a paged cache on the CPU, straight from the packed
// codes: keys and values are unpacked a tile at a time and used by all query
// rows of their KV head. A rotation is applied to the queries and undone once
// on the output; scales per channel are folded into the queries, others into
// scores and weights.
//
// Holds the memory that calls need; nothing is allocated after creation. One
// call at a time.
class PagedAttention {
 public:
  struct Options {
    int query_heads = 0;  // a multiple of kv_heads
    int kv_heads = 0;
    int head_dim = 0;     // as codecs support: a multiple of 8, from 8 to 512
    int max_entries = 0;  // of a call
    int max_rows = 0;     // query rows of all entries of a call
    int max_threads = 0;  // more of a LoopRunner's aren't used
    Backend backend = Backend::kSimd;
  };

  // INVALID_ARGUMENT names the option that isn't supported; RESOURCE_EXHAUSTED
  // when memory runs out.
  static absl::StatusOr<std::unique_ptr<PagedAttention>> Create(
      const Options& options);

  ~PagedAttention();
  PagedAttention(const PagedAttention&) = delete;
  PagedAttention& operator=(const PagedAttention&) = delete;

  // Attention of the new tokens of each step, after they were appended: rows
  // first_row + i of `queries` and `out` belong to position begin + i. Steps
  // have at most kMaxDecodeQueries tokens; those without any are passed over.
  // `plans` are those of the layer's codecs, [kv_heads * 2]. Geometry and
  // limits are those of the options. Rows don't overlap. The result doesn't
  // depend on `loops` (null: the calling thread alone) nor on the other steps.
  void Run(const LayerMemory& memory, absl::Span<const RowPlan> plans,
           absl::Span<const SequenceStep> steps, const AttentionParams& params,
           const ConstHeads& queries, const MutableHeads& out,
           LoopRunner* loops);

 private:
  // Part of the positions of one KV head of one step.
  struct Item {
    int step = 0;
    int head = 0;
    int begin = 0;  // positions [begin, end)
    int end = 0;
    int part = 0;  // of the head's `parts`
    int parts = 0;
    int64_t partial = 0;  // first of the head's partial rows, [parts, rows]
  };
  struct Call;

  explicit PagedAttention(const Options& options);

  void MakeItems(const Call& call);
  void RunItem(const Call& call, const Item& item, HeadAttention& attention);
  void Combine(const Call& call, const Item& item);
  // Writes sums[head_dim] / sum, and the mean of V where there is one, to an
  // output row; `sums` is used up.
  void StoreRow(const Call& call, const Item& item, int row, float* sums,
                float sum) const;
  float* PartialRow(int64_t row) const {
    return partials_.get() + row * partial_floats_;
  }

  const Options options_;
  const AttentionKernels& kernels_;
  const int64_t partial_floats_;  // of a partial row: dim sums, max, sum
  std::vector<HeadAttention> workers_;
  std::vector<Item> items_;
  std::vector<int64_t> head_bytes_;  // [kv_heads]
  std::vector<int> splits_;          // [kv_heads]
  // [max_entries * kv_heads] parts that aren't finished.
  std::unique_ptr<std::atomic<int>[]> unfinished_;
  hwy::AlignedFreeUniquePtr<float[]> partials_;  // rows of partial_floats_
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_PAGED_ATTENTION_H_
