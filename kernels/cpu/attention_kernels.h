#ifndef RATEQUANT_KERNELS_CPU_ATTENTION_KERNELS_H_
#define RATEQUANT_KERNELS_CPU_ATTENTION_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quantizers/row_plan.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/tensor.h"

// The inner loops of decode attention. Tokens are taken in tiles: the codes of
// a tile are unpacked to floats once, for all query rows of the KV head.

namespace ratequant::kv {

inline constexpr int kTileTokens = 32;
inline constexpr int kRowAlignment = 64;  // bytes, of every float array below

// A token's value is scale * level + zero, with the levels in the tile.
struct TileFactors {
  alignas(kRowAlignment) float scale[kTileTokens] = {};
  alignas(kRowAlignment) float zero[kTileTokens] = {};
};

// What is added to codes to make levels. Those of quantizers with a scale per
// token lie about 0, so that sums don't grow only to be taken back by the
// zeros.
inline int LevelOffset(const RowPlan& plan) {
  const bool centred =
      plan.kind == QuantizerKind::kRtn || plan.kind == QuantizerKind::kQuarot;
  return centred ? -(1 << (plan.width - 1)) : 0;
}

// Tokens [begin, end) of a tile.
struct TileRange {
  int begin = 0;
  int end = 0;
};

// Running softmax of the query rows of a KV head. Weights are relative to
// exp(max).
struct SoftmaxRows {
  int rows = 0;
  int dim = 0;
  float* max = nullptr;    // [rows] largest score so far
  float* sum = nullptr;    // [rows] of weights
  float* zero = nullptr;   // [rows] of weight * zero: belongs to every channel
  float* plain = nullptr;  // [rows, dim] of weight * value
  float* rotated = nullptr;  // [rows, dim] the same, of rotated values; or null
};

struct AttentionKernels {
  // Rows [row, row + count) of a section, of which, and of whatever follows it,
  // `readable` bytes may be read: levels into tile[count, dim] and the
  // factors of `count` tokens. Where channels have parameters of their own, a
  // key's are left to fold_channels and its factors are 1 and 1; a value's are
  // in the levels.
  void (*load_packed)(const RowPlan& plan, const uint8_t* section,
                      size_t readable, int row, int count, float* tile,
                      TileFactors& factors);

  // fp16 numbers into `out`; `count` is a multiple of 8.
  void (*load_halves)(const uint16_t* halves, int count, float* out);

  // For keys with parameters per channel, those of the block of token `row`:
  // folded = query * scale, constants[r] = <query, zero>.
  void (*fold_channels)(const RowPlan& plan, const uint8_t* section, int row,
                        const float* queries, int rows, float* folded,
                        float* constants);

  // scores[r * kTileTokens + t] = <queries[r], tile[t]>. Tokens up to the next
  // multiple of 4 are written, of whatever the tile holds.
  void (*score)(const float* queries, int rows, const float* tile, int count,
                int dim, float* scores);

  // Turns scores into weights times the values' scales, in place, and takes
  // them into `state`, all of which is rescaled where its maximum grows. The
  // score is keys.scale * score + keys.zero * constants[r]; tokens outside
  // visible[r] get weight 0.
  void (*weigh)(const TileFactors& keys, const float* constants,
                const TileFactors& values, const TileRange* visible, int count,
                float soft_cap, float* scores, SoftmaxRows& state);

  // sums[r] += weights[r * kTileTokens + t] * tile[t], over t < count.
  void (*accumulate)(const float* weights, int rows, const float* tile,
                     int count, int dim, float* sums);

  // One row times `factor`, from and to tensors of any type.
  void (*load_row)(const void* data, DType dtype, int dim, float factor,
                   float* row);
  void (*store_row)(const float* row, float factor, int dim, void* data,
                    DType dtype);

  // Rotate and RotateBack, in place.
  void (*rotate)(const float* signs, int dim, float* row);
  void (*rotate_back)(const float* signs, int dim, float* row);
};

// One float at a time, for any CPU.
const AttentionKernels& ScalarAttentionKernels();

// For this CPU; the scalar ones for kReference and where there are no vectors.
const AttentionKernels& GetAttentionKernels(Backend backend);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_ATTENTION_KERNELS_H_
