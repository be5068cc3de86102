#ifndef RATEQUANT_KERNELS_CPU_OUTPUT_KERNELS_H_
#define RATEQUANT_KERNELS_CPU_OUTPUT_KERNELS_H_

#include "kernels/quantizers/visible_tokens.h"

// The inner loops of d2: how the output of attention changes, seen along its
// gradient. Query rows are taken in tiles; a matrix over a tile is
// [kOutputRows][stride], its columns the tokens 0 to `count`, a multiple of
// kOutputRows.

namespace ratequant::kv {

inline constexpr int kOutputRows = 32;
inline constexpr int kOutputAlignment = 64;  // bytes, of every float array

// One query head's exact attention over a tile.
struct OutputTile {
  const VisibleTokens* seen = nullptr;  // [kOutputRows]
  int stride = 0;
  int count = 0;
  float soft_cap = 0;
  float* scores = nullptr;   // of Q and K; -inf where a query doesn't see
  float* weights = nullptr;  // their softmax
  // Gradient of the output times V, less its mean under `weights`: what a
  // weight's change costs.
  float* costs = nullptr;
};

struct OutputKernels {
  // out = rows [kOutputRows, dim] * columns [dim, stride], for `count` columns.
  void (*multiply)(const float* rows, int dim, const float* columns, int stride,
                   int count, float* out);
  // From products in `scores` and `costs`, all of the tile.
  void (*prepare)(const OutputTile& tile);
  // Adds each row's change when `products` [kOutputRows][stride], of Q and
  // decoded K, take the place of the scores of quantized tokens. They are
  // overwritten.
  void (*add_key_changes)(const OutputTile& tile, float* products,
                          double* changes);
  // The same with `products` of the gradient and decoded less exact V.
  void (*add_value_changes)(const OutputTile& tile, float* products,
                            double* changes);
};

// For the best instruction set this CPU has; null when that has no vectors.
const OutputKernels* GetOutputKernels();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_OUTPUT_KERNELS_H_
