#ifndef RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_H_
#define RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_H_

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/paged_layer.h"
#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/attention.h"

namespace ratequant::kv::cuda {

// Decode attention of a step's tokens over one layer, after LaunchAppend:
// attention.h, over the dequantized cache, computed in fp32.
struct AttentionLaunch {
  const FormatTable* formats = nullptr;
  PagedLayer layer;
  const SequenceStep* steps = nullptr;  // [num_steps], device
  int num_steps = 0;
  int max_queries = 0;  // no step has more tokens; 1 to kMaxDecodeQueries
  AttentionParams params;
  ConstHeads queries;  // [query_heads, rows, head_dim], device
  MutableHeads out;    // the same shape, device; may have another dtype
  // Thread blocks that share the packed bytes evenly. A few for each
  // multiprocessor; more than there are pages do nothing. The result depends on
  // it in the last bits, as the order of sums does.
  int num_ctas = 0;
  // Device, a multiple of 16, AttentionWorkspaceBytes of it. Launches in order
  // on one stream can share it.
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
};

// Bytes of workspace for launches of these limits.
size_t AttentionWorkspaceBytes(int num_steps, int kv_heads, int head_dim,
                               int query_heads, int max_queries, int num_ctas);

// Starts three kernels (plan, attend, combine), whose grids depend on
// num_steps, max_queries and num_ctas alone; capturable as LaunchAppend is. A
// step with more tokens than max_queries is left out. INVALID_ARGUMENT names
// what isn't supported and what is: head_dim 64, 80, 96, 128, 256.
Status LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_H_
