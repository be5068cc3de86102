#ifndef RATEQUANT_TESTS_KERNELS_ATTENTION_ATTENTION_CASE_H_
#define RATEQUANT_TESTS_KERNELS_ATTENTION_ATTENTION_CASE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/paged_attention.h"
#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::kv {

struct AttentionSequence {
  int length = 0;
  int queries = 1;  // the last tokens; 0: an entry that isn't used
  int packed_floor = 0;
};

// One layer and one step over it.
struct AttentionShape {
  int head_dim = 64;
  int group = 1;  // query heads of a KV head
  int page_tokens = 32;
  int sink_tokens = 4;
  int window = 32;
  int sliding_window = 0;
  float soft_cap = 0;
  DType query_dtype = DType::kFloat32;
  DType out_dtype = DType::kFloat32;
  std::vector<AttentionSequence> sequences;
};

std::string Describe(const AttentionShape& shape);

// A layer's memory, filled as a cache that has appended the sequences' tokens
// has it. What attention may not read holds fp16 NaNs. Sequences are long
// [length, head_dim] rows of bell-shaped numbers, their queries too.
class AttentionCase {
 public:
  // formats: [kv_heads * 2].
  AttentionCase(const AttentionShape& shape,
                const std::vector<GroupFormat>& formats, uint64_t seed = 1);

  int kv_heads() const { return static_cast<int>(formats_.size()) / 2; }
  const LayerMemory& memory() const { return memory_; }
  const AttentionParams& params() const { return params_; }
  const std::vector<SequenceStep>& steps() const { return steps_; }
  const std::vector<RowPlan>& plans() const { return plans_; }
  // Original rows, to be changed before Fill.
  float* Row(Tensor tensor, int sequence, int head, int position);
  // [query_heads, rows, head_dim]; changed freely.
  std::vector<float>& queries() { return queries_; }

  // Writes all rows into the layer's memory.
  void Fill();

  PagedAttention::Options LimitsFor(int threads, Backend backend) const;

  // Attention by PagedAttention, [rows, query_heads, head_dim].
  std::vector<float> Run(Backend backend, LoopRunner* loops = nullptr);
  std::vector<float> Run(PagedAttention& attention, LoopRunner* loops);

  // Attention in fp64 over the rows as the cache stores them, or as they were.
  std::vector<double> Reference(bool stored);

  // The largest magnitude of a stored value: what outputs are measured with.
  double LargestValue() const;

 private:
  struct Rows {
    std::vector<float> keys;  // [kv_heads, length, head_dim]
    std::vector<float> values;
  };

  float* RowOf(std::vector<Rows>& rows, Tensor tensor, int sequence, int head,
               int position);
  void FillGroup(int sequence, int group);

  const AttentionShape shape_;
  const std::vector<GroupFormat> formats_;
  AttentionParams params_;
  std::vector<std::unique_ptr<Codec>> codecs_;
  std::vector<RowPlan> plans_;
  std::vector<GroupPlace> places_;
  std::vector<SequenceStep> steps_;
  LayerMemory memory_;
  std::unique_ptr<uint8_t[]> page_memory_;
  std::unique_ptr<uint8_t[]> sidecars_;
  std::vector<int32_t> block_table_;
  std::vector<Rows> rows_;    // of each sequence, as they were
  std::vector<Rows> stored_;  // as stored
  std::vector<float> queries_;
  int query_rows_ = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_ATTENTION_ATTENTION_CASE_H_
