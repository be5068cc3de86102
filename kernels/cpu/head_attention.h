#ifndef RATEQUANT_KERNELS_CPU_HEAD_ATTENTION_H_
#define RATEQUANT_KERNELS_CPU_HEAD_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "kernels/quantizers/row_plan.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/heads.h"

namespace ratequant::kv {

// One KV head of one step.
struct HeadTask {
  const LayerMemory* memory = nullptr;
  const RowPlan* plans = nullptr;  // of K and V
  SequenceStep step;
  const AttentionParams* params = nullptr;
  int head = 0;
};

// Attention of one KV head over part of a sequence's positions, and the memory
// that it takes. Query row r is query r % count of the step, of the head's
// query head r / count. One thread at a time.
class HeadAttention {
 public:
  HeadAttention(const AttentionKernels& kernels, int dim, int max_rows);

  // Attends to positions [begin, end). The queries are those of the step's
  // rows.
  void Run(const HeadTask& task, const ConstHeads& queries, int begin, int end);

  // Of the last run: the sums of weights and of weighted values (in the
  // original basis) are relative to exp(max).
  float max(int row) const { return state_.max[row]; }
  float sum(int row) const { return state_.sum[row]; }
  float* sums(int row) const { return state_.plain + row * dim_; }

 private:
  // Tokens of K or V that lie one after the other.
  struct Source {
    const uint16_t* halves = nullptr;  // sinks, ring; else
    const uint8_t* section = nullptr;  // of the page, and
    int row = 0;                       // the row in it
    int end = 0;                       // position behind the last token
  };

  void LoadQueries(const ConstHeads& queries);
  // Where `position` and those that follow it lie.
  Source Locate(int tensor, int position) const;
  // Fetches what the tile at `position` is packed in: pages lie anywhere, where
  // the CPU doesn't expect them.
  void Prefetch(int tensor, int position, int end) const;
  void LoadTile(int tensor, const Source& source, int count,
                TileFactors& factors);
  void ScoreKeys(const Source& source, int count);
  void FoldQueries(const Source& source);
  void FindVisible(int position, int count);
  // Scores and the tile of values to sums.
  void AddValues(const Source& keys, const Source& values, int position,
                 int count);
  void Finish();
  bool IsRotated(int tensor) const {
    return task_.plans[tensor].signs != nullptr;
  }
  const GroupPlace& PlaceOf(int tensor) const {
    return task_.memory->groups[task_.head * 2 + tensor];
  }

  const AttentionKernels& kernels_;
  const int dim_;
  HeadTask task_;
  SoftmaxRows state_;
  hwy::AlignedFreeUniquePtr<float[]> storage_;
  // Queries times softmax_scale, [rows, dim]: as they are, for rotated keys,
  // and with the scales of the present block of keys.
  float* queries_;
  float* rotated_queries_;
  float* folded_queries_;
  // What a score gets for each zero, [rows]: per-token and per-channel keys.
  float* query_sums_;
  float* folded_constants_;
  const float* constants_ = nullptr;  // of the present tile
  float* rotated_sums_;               // [rows, dim]
  float* tile_;                       // [kTileTokens, dim]
  float* scores_;                     // [rows, kTileTokens]
  std::vector<TileRange> visible_;    // [rows]
  int folded_end_ = 0;  // of the block whose parameters are folded, or 0
  TileFactors key_factors_;
  TileFactors value_factors_;
  TileFactors plain_factors_;  // of fp16 rows: 1 and 0
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_HEAD_ATTENTION_H_
