#ifndef RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_H_
#define RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/status.h"
#include "kernels/quantizers/visible_tokens.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// Queries of a block of the kernels below. Tokens are multiples of it.
inline constexpr int kOutputTileRows = 16;

// One KV head of one layer of one sequence, in device memory.
struct OutputHead {
  int tokens = 0;
  int head_dim = 0;
  int share = 0;  // query heads
  float softmax_scale = 0;
  float soft_cap = 0;  // 0: none
  TokenView view;
  DType dtype = DType::kFloat32;    // of the four below
  const void* keys = nullptr;       // [tokens, head_dim]
  const void* values = nullptr;     // [tokens, head_dim]
  const void* queries = nullptr;    // [share, tokens, head_dim]
  const void* gradients = nullptr;  // of the output, as queries
  // Written by LaunchExactAttention: a row's scores, -inf where it doesn't see;
  // its weights; and what a weight's change costs.
  float* scores = nullptr;   // [share, tokens, tokens]
  float* weights = nullptr;  // [share, tokens, tokens]
  float* costs = nullptr;    // [share, tokens, tokens]
};

// Pairs of a quantizer and a width, decoded rows of K or V side by side.
struct OutputPairs {
  Tensor tensor = Tensor::kKey;
  int count = 0;
  const float* decoded = nullptr;  // [count, tokens, head_dim]
  float* columns = nullptr;        // [count, head_dim, tokens], scratch
  // Sums of squared changes over the rows of a tile.
  double* sums = nullptr;  // [count, tokens / kOutputTileRows]
};

// Scores and softmax of the head as it is. Starts one kernel. Errors as
// LaunchSweep's.
Status LaunchExactAttention(const OutputHead& head, cudaStream_t stream);

// How much the head's output changes, along the gradient, with the pairs'
// decoded rows in place of its own where a query reads them back. After
// LaunchExactAttention; starts two kernels. Every sum has one order: the same
// input gives the same bits.
Status LaunchOutputChanges(const OutputHead& head, const OutputPairs& pairs,
                           cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_H_
