#ifndef RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_CUH_
#define RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/output_change.h"
#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/shared_memory.h"
#include "kernels/quantizers/limits.h"

// A block takes a tile of query rows, a warp a few of them; its lanes take
// tokens side by side, so that columns are read coalesced and each element
// serves all rows of the warp.

namespace ratequant::kv::cuda {

inline constexpr int kOutputWarps = 4;
inline constexpr int kRowsPerOutputWarp = kOutputTileRows / kOutputWarps;

// Channels taken at once; head_dim is a multiple.
inline constexpr int kChannelStep = 4;

struct OutputShared {
  alignas(16) float rows[kOutputTileRows][kMaxHeadDim];
  double squares[kOutputTileRows];
};

__device__ __forceinline__ float OutputElement(DType dtype, const void* data,
                                               int64_t index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kFloat16 ? FromHalf(bits) : FloatOfBFloat16(bits);
}

// Rows [first, first + kOutputTileRows) of query head `j`, times `scale`, into
// shared memory, for the whole block.
__device__ __forceinline__ void LoadTileRows(const OutputHead& head,
                                             const void* data, int j, int first,
                                             float scale) {
  float(&rows)[kOutputTileRows][kMaxHeadDim] = SharedAs<OutputShared>().rows;
  const int64_t at =
      (static_cast<int64_t>(j) * head.tokens + first) * head.head_dim;
  __syncthreads();  // the rows before are in use
  for (int i = threadIdx.x; i < kOutputTileRows * head.head_dim;
       i += blockDim.x) {
    rows[i / head.head_dim][i % head.head_dim] =
        scale * OutputElement(head.dtype, data, at + i);
  }
  __syncthreads();
}

__device__ __forceinline__ float CappedScore(const OutputHead& head,
                                             float score) {
  if (!(head.soft_cap > 0.0f)) return score;
  return head.soft_cap * tanhf(score / head.soft_cap);
}

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += ShuffleXor(value, step);
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value = fmaxf(value, ShuffleXor(value, step));
  }
  return value;
}

// One row's products with K and V, its softmax, and the costs; a warp a row.
__global__ void __launch_bounds__(kOutputWarps * 32)
    ExactAttentionKernel(const __grid_constant__ OutputHead head) {
  const OutputShared& shared = SharedAs<OutputShared>();
  const int first = static_cast<int>(blockIdx.x) * kOutputTileRows;
  const int j = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int pass = 0; pass < 2; ++pass) {
    const bool costs = pass == 1;
    LoadTileRows(head, costs ? head.gradients : head.queries, j, first,
                 costs ? 1.0f : head.softmax_scale);
    const void* const other = costs ? head.values : head.keys;
    for (int row = warp; row < kOutputTileRows; row += kOutputWarps) {
      const VisibleTokens seen = TokensSeenBy(first + row, head.view);
      float* const out =
          (costs ? head.costs : head.scores) +
          (static_cast<int64_t>(j) * head.tokens + first + row) * head.tokens;
      for (int s = lane; s < head.tokens; s += 32) {
        float product = 0.0f;
        if (s <= seen.last) {
          for (int c = 0; c < head.head_dim; ++c) {
            product +=
                shared.rows[row][c] *
                OutputElement(head.dtype, other,
                              static_cast<int64_t>(s) * head.head_dim + c);
          }
        }
        const bool visible = s >= seen.first && s <= seen.last;
        out[s] = costs     ? product
                 : visible ? CappedScore(head, product)
                           : -INFINITY;
      }
    }
  }
  // A lane reads what it wrote itself.
  for (int row = warp; row < kOutputTileRows; row += kOutputWarps) {
    const int64_t at =
        (static_cast<int64_t>(j) * head.tokens + first + row) * head.tokens;
    float top = -INFINITY, sum = 0.0f, mean = 0.0f;
    for (int s = lane; s < head.tokens; s += 32) {
      top = fmaxf(top, head.scores[at + s]);
    }
    top = WarpMax(top);
    for (int s = lane; s < head.tokens; s += 32) {
      const float weight = expf(head.scores[at + s] - top);
      head.weights[at + s] = weight;
      sum += weight;
      mean += weight * head.costs[at + s];
    }
    sum = WarpSum(sum);
    mean = WarpSum(mean) / sum;
    for (int s = lane; s < head.tokens; s += 32) {
      head.weights[at + s] /= sum;
      head.costs[at + s] -= mean;
    }
  }
}

// columns[pair][c][s]: decoded K, or decoded less exact V; sinks as they are.
__global__ void OutputColumnsKernel(const __grid_constant__ OutputHead head,
                                    const __grid_constant__ OutputPairs pairs) {
  const bool is_key = pairs.tensor == Tensor::kKey;
  const int64_t elements = static_cast<int64_t>(head.tokens) * head.head_dim;
  const float* const decoded = pairs.decoded + blockIdx.y * elements;
  float* const columns = pairs.columns + blockIdx.y * elements;
  const void* const own = is_key ? head.keys : head.values;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < elements; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t s = i % head.tokens, c = i / head.tokens;
    const int64_t at = s * head.head_dim + c;
    const float exact = OutputElement(head.dtype, own, at);
    const float value = s < head.view.sink_tokens ? exact : decoded[at];
    columns[i] = is_key ? value : value - exact;
  }
}

// Running softmax of a lane's tokens.
struct LaneSoftmax {
  float top = -INFINITY;
  float sum = 0.0f;
  float cost = 0.0f;

  __device__ __forceinline__ void Add(float score, float token_cost) {
    if (score == -INFINITY) return;
    if (score > top) {
      const float factor = expf(top - score);  // 0 for the first
      sum *= factor;
      cost *= factor;
      top = score;
    }
    const float weight = expf(score - top);
    sum += weight;
    cost += weight * token_cost;
  }

  // The mean cost under the softmax over all lanes, to all of them.
  __device__ __forceinline__ float MeanCost() const {
    const float largest = WarpMax(top);
    const float factor = top == -INFINITY ? 0.0f : expf(top - largest);
    return WarpSum(cost * factor) / WarpSum(sum * factor);
  }
};

template <bool kKey>
__global__ void __launch_bounds__(kOutputWarps * 32)
    OutputChangeKernel(const __grid_constant__ OutputHead head,
                       const __grid_constant__ OutputPairs pairs) {
  OutputShared& shared = SharedAs<OutputShared>();
  const int first = static_cast<int>(blockIdx.x) * kOutputTileRows;
  const int pair = static_cast<int>(blockIdx.y);
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kRowsPerOutputWarp;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* const columns =
      pairs.columns + static_cast<int64_t>(pair) * head.tokens * head.head_dim;
  double changes[kRowsPerOutputWarp] = {};
  for (int j = 0; j < head.share; ++j) {
    LoadTileRows(head, kKey ? head.queries : head.gradients, j, first,
                 kKey ? head.softmax_scale : 1.0f);
    LaneSoftmax softmax[kRowsPerOutputWarp];
    float sums[kRowsPerOutputWarp] = {};
    // The last row of the warp sees most.
    const int end = first + warp_row + kRowsPerOutputWarp;
    for (int s = lane; s < end; s += 32) {
      float products[kRowsPerOutputWarp] = {};
      for (int c = 0; c < head.head_dim; c += kChannelStep) {
        float x[kChannelStep];
#pragma unroll
        for (int i = 0; i < kChannelStep; ++i) {
          x[i] = columns[static_cast<int64_t>(c + i) * head.tokens + s];
        }
#pragma unroll
        for (int r = 0; r < kRowsPerOutputWarp; ++r) {
          // 16 bytes at once, the same for all lanes.
          const float4 q =
              *reinterpret_cast<const float4*>(&shared.rows[warp_row + r][c]);
          products[r] += q.x * x[0];
          products[r] += q.y * x[1];
          products[r] += q.z * x[2];
          products[r] += q.w * x[3];
        }
      }
#pragma unroll
      for (int r = 0; r < kRowsPerOutputWarp; ++r) {
        const int query = first + warp_row + r;
        const VisibleTokens seen = TokensSeenBy(query, head.view);
        const bool quantized =
            s >= seen.first_quantized && s < seen.end_quantized;
        const int64_t at =
            (static_cast<int64_t>(j) * head.tokens + query) * head.tokens + s;
        if constexpr (kKey) {
          softmax[r].Add(
              quantized ? CappedScore(head, products[r]) : head.scores[at],
              head.costs[at]);
        } else if (quantized) {
          sums[r] += head.weights[at] * products[r];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsPerOutputWarp; ++r) {
      // Without a quantized token there is nothing but rounding.
      const float change = kKey ? softmax[r].MeanCost() : WarpSum(sums[r]);
      const VisibleTokens seen = TokensSeenBy(first + warp_row + r, head.view);
      if (seen.any_quantized()) changes[r] += static_cast<double>(change);
    }
  }
  if (lane == 0) {
#pragma unroll
    for (int r = 0; r < kRowsPerOutputWarp; ++r) {
      shared.squares[warp_row + r] = changes[r] * changes[r];
    }
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double sum = 0.0;
  for (int r = 0; r < kOutputTileRows; ++r) sum += shared.squares[r];
  pairs.sums[static_cast<int64_t>(pair) * gridDim.x + blockIdx.x] = sum;
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_OUTPUT_CHANGE_CUH_
