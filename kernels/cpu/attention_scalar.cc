#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/uniform.h"
#include "kernels/reference/tcq_row.h"

namespace ratequant::kv {
namespace {

float HalfAt(const uint8_t* bytes) {
  uint16_t half;
  memcpy(&half, bytes, sizeof(half));
  return FloatOfHalf(half);
}

float LevelOf(const RowPlan& plan, const uint8_t* section, int token, int c) {
  const uint8_t* const row =
      section + plan.layout.codes_offset + token * plan.layout.row_bytes;
  const int code = CodeAt(row, plan.width, c);
  if (plan.trellis) {
    return plan.codebook->units[TrellisLevelAt(row, plan.width, plan.dim, c)];
  }
  if (plan.codebook != nullptr) {
    return plan.codebook->units[code];
  }
  if (plan.kind == QuantizerKind::kKivi && plan.params.block_tokens == 1) {
    const int index = c / plan.params.block_channels;
    return AsymmetricValue(
        code, HalfAt(section + plan.params.ZeroOffset(token, index)),
        HalfAt(section + plan.params.ScaleOffset(token, index)));
  }
  return static_cast<float>(code + LevelOffset(plan));
}

void LoadFactor(const RowPlan& plan, const uint8_t* section, int token,
                float& scale, float& zero) {
  if (plan.kind == QuantizerKind::kKivi) {
    scale = 1.0f;
    zero = plan.params.block_tokens > 1 ? 1.0f : 0.0f;
    return;
  }
  zero = 0.0f;
  if (plan.params.param_bytes == 1) {
    scale = GainOfCode(section[plan.params.ScaleOffset(token, 0)]);
    return;
  }
  scale = HalfAt(section + plan.params.ScaleOffset(token, 0));
  if (plan.params.has_zero) {
    zero = HalfAt(section + plan.params.ZeroOffset(token, 0)) -
           static_cast<float>(LevelOffset(plan)) * scale;
  } else if (plan.kind == QuantizerKind::kRtn && plan.width == 1) {
    // Levels are -1 and 0: (2 code - 1) s = 2 s (code - 1) + s.
    zero = scale;
    scale *= 2.0f;
  }
}

void LoadPacked(const RowPlan& plan, const uint8_t* section, size_t, int row,
                int count, float* tile, TileFactors& factors) {
  for (int t = 0; t < count; ++t) {
    for (int c = 0; c < plan.dim; ++c) {
      tile[t * plan.dim + c] = LevelOf(plan, section, row + t, c);
    }
    LoadFactor(plan, section, row + t, factors.scale[t], factors.zero[t]);
  }
}

void LoadHalves(const uint16_t* halves, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] = FloatOfHalf(halves[i]);
}

float Dot(const float* a, const float* b, int dim) {
  float sum = 0.0f;
  for (int c = 0; c < dim; ++c) sum += a[c] * b[c];
  return sum;
}

void FoldChannels(const RowPlan& plan, const uint8_t* section, int row,
                  const float* queries, int rows, float* folded,
                  float* constants) {
  std::fill_n(constants, rows, 0.0f);
  for (int c = 0; c < plan.dim; ++c) {
    const float scale = HalfAt(section + plan.params.ScaleOffset(row, c));
    const float zero = HalfAt(section + plan.params.ZeroOffset(row, c));
    for (int r = 0; r < rows; ++r) {
      folded[r * plan.dim + c] = queries[r * plan.dim + c] * scale;
      constants[r] += queries[r * plan.dim + c] * zero;
    }
  }
}

void Score(const float* queries, int rows, const float* tile, int count,
           int dim, float* scores) {
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < count; ++t) {
      scores[r * kTileTokens + t] = Dot(queries + r * dim, tile + t * dim, dim);
    }
  }
}

void RaiseMax(SoftmaxRows& state, int row, float max) {
  if (max <= state.max[row]) return;
  const float factor = std::exp(state.max[row] - max);
  state.max[row] = max;
  state.sum[row] *= factor;
  state.zero[row] *= factor;
  for (float* const sums : {state.plain, state.rotated}) {
    if (sums == nullptr) continue;
    for (int c = 0; c < state.dim; ++c) sums[row * state.dim + c] *= factor;
  }
}

void Weigh(const TileFactors& keys, const float* constants,
           const TileFactors& values, const TileRange* visible, int count,
           float soft_cap, float* scores, SoftmaxRows& state) {
  for (int r = 0; r < state.rows; ++r) {
    float* const row = scores + r * kTileTokens;
    const auto [begin, end] = visible[r];
    float max = state.max[r];
    for (int t = begin; t < end; ++t) {
      row[t] = keys.scale[t] * row[t] + keys.zero[t] * constants[r];
      if (soft_cap > 0) row[t] = soft_cap * std::tanh(row[t] / soft_cap);
      max = std::max(max, row[t]);
    }
    RaiseMax(state, r, max);
    for (int t = 0; t < count; ++t) {
      const bool seen = begin <= t && t < end;
      const float weight = seen ? std::exp(row[t] - max) : 0.0f;
      state.sum[r] += weight;
      state.zero[r] += weight * values.zero[t];
      row[t] = weight * values.scale[t];
    }
  }
}

void Accumulate(const float* weights, int rows, const float* tile, int count,
                int dim, float* sums) {
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < count; ++t) {
      const float weight = weights[r * kTileTokens + t];
      for (int c = 0; c < dim; ++c) {
        sums[r * dim + c] += weight * tile[t * dim + c];
      }
    }
  }
}

void LoadRow(const void* data, DType dtype, int dim, float factor, float* row) {
  for (int c = 0; c < dim; ++c) row[c] = LoadElement(data, dtype, c) * factor;
}

void StoreRow(const float* row, float factor, int dim, void* data,
              DType dtype) {
  for (int c = 0; c < dim; ++c) StoreElement(row[c] * factor, data, dtype, c);
}

void RotateInPlace(const float* signs, int dim, float* row) {
  Rotate(signs, row, dim);
}

void RotateBackInPlace(const float* signs, int dim, float* row) {
  RotateBack(signs, row, dim);
}

}  // namespace

const AttentionKernels& ScalarAttentionKernels() {
  static constexpr AttentionKernels kKernels = {
      .load_packed = &LoadPacked,
      .load_halves = &LoadHalves,
      .fold_channels = &FoldChannels,
      .score = &Score,
      .weigh = &Weigh,
      .accumulate = &Accumulate,
      .load_row = &LoadRow,
      .store_row = &StoreRow,
      .rotate = &RotateInPlace,
      .rotate_back = &RotateBackInPlace,
  };
  return kKernels;
}

}  // namespace ratequant::kv
