#include "kernels/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_kernels.cc"
// Highway's order:
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on
#include "kernels/cpu/level_tile-inl.h"
#include "kernels/cpu/tile_products-inl.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

// Calls `function` with the widest vectors that divide `count`.
template <class Function>
HWY_INLINE void WithVectors(int count, const Function& function) {
  if (count % 16 == 0) {
    function(WideTag());
  } else {
    function(NarrowTag());
  }
}

void LoadPacked(const RowPlan& plan, const uint8_t* section, size_t readable,
                int row, int count, float* tile, TileFactors& factors) {
  // Vectors stay inside a row, and inside a group of its channels.
  const bool grouped = plan.params.block_channels > 1;
  WithVectors(
      grouped ? plan.params.block_channels : plan.dim, [&](auto d) HWY_ATTR {
        LoadPackedTile(d, plan, section, readable, row, count, tile, factors);
      });
}

void LoadHalfRows(const uint16_t* halves, int count, float* out) {
  WithVectors(count, [&](auto d) HWY_ATTR {
    for (int i = 0; i < count; i += NumLanes(d)) {
      hn::StoreU(LoadHalves(d, halves + i), d, out + i);
    }
  });
}

void FoldChannels(const RowPlan& plan, const uint8_t* section, int row,
                  const float* queries, int rows, float* folded,
                  float* constants) {
  const int dim = plan.dim;
  WithVectors(dim, [&](auto d) HWY_ATTR {
    HWY_ALIGN float scales[kMaxDim];
    HWY_ALIGN float zeros[kMaxDim];
    HalvesToFloats(d, section + plan.params.ScaleOffset(row, 0), dim, scales);
    HalvesToFloats(d, section + plan.params.ZeroOffset(row, 0), dim, zeros);
    for (int r = 0; r < rows; ++r) {
      auto constant = hn::Zero(d);
      for (int i = 0; i < dim; i += NumLanes(d)) {
        const auto query = hn::LoadU(d, queries + r * dim + i);
        constant = hn::MulAdd(query, hn::Load(d, zeros + i), constant);
        hn::StoreU(hn::Mul(query, hn::Load(d, scales + i)), d,
                   folded + r * dim + i);
      }
      constants[r] = hn::GetLane(hn::SumOfLanes(d, constant));
    }
  });
}

void Score(const float* queries, int rows, const float* tile, int count,
           int dim, float* scores) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    ScoreTile(d, queries, rows, tile, count, dim, scores);
  });
}

void Accumulate(const float* weights, int rows, const float* tile, int count,
                int dim, float* sums) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    AccumulateTile(d, weights, rows, tile, count, dim, sums);
  });
}

// Multiplies what is relative to exp(max) of a row.
void Rescale(float factor, int row, SoftmaxRows& state) {
  state.sum[row] *= factor;
  state.zero[row] *= factor;
  const int dim = state.dim;
  WithVectors(dim, [&](auto d) HWY_ATTR {
    const auto by = hn::Set(d, factor);
    for (float* const sums : {state.plain, state.rotated}) {
      if (sums == nullptr) continue;
      for (int i = row * dim; i < (row + 1) * dim; i += NumLanes(d)) {
        hn::StoreU(hn::Mul(hn::LoadU(d, sums + i), by), d, sums + i);
      }
    }
  });
}

// A row's scores, of which those of tokens outside `visible` are -infinity.
// Returns the largest, and `max` at least.
template <bool kCapped>
HWY_INLINE float FinishScores(const TileFactors& keys, float constant,
                              TileRange visible, int count, float soft_cap,
                              float max, float* HWY_RESTRICT scores) {
  const WideTag d;
  const IntTag<WideTag> di;
  const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const auto zero_factor = hn::Set(d, constant);
  const auto cap = hn::Set(d, soft_cap);
  const auto lanes = hn::Iota(di, 0);
  auto largest = hn::Set(d, max);
  for (int t = 0; t < count; t += NumLanes(d)) {
    auto score =
        hn::MulAdd(hn::Load(d, keys.scale + t), hn::Load(d, scores + t),
                   hn::Mul(hn::Load(d, keys.zero + t), zero_factor));
    if constexpr (kCapped) {
      score = hn::Mul(cap, hn::Tanh(d, hn::Div(score, cap)));
    }
    const auto seen = hn::And(hn::Gt(lanes, hn::Set(di, visible.begin - t - 1)),
                              hn::Lt(lanes, hn::Set(di, visible.end - t)));
    score = hn::IfThenElse(hn::RebindMask(d, seen), score, lowest);
    hn::Store(score, d, scores + t);
    largest = hn::Max(largest, score);
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// exp(score - max), times the values' scales in place.
HWY_INLINE void FinishWeights(const TileFactors& values, float max, int count,
                              float* HWY_RESTRICT scores, float& sum,
                              float& zero) {
  const WideTag d;
  const auto top = hn::Set(d, max);
  auto weights = hn::Zero(d), zeros = hn::Zero(d);
  for (int t = 0; t < count; t += NumLanes(d)) {
    const auto weight = hn::Exp(d, hn::Sub(hn::Load(d, scores + t), top));
    weights = hn::Add(weights, weight);
    zeros = hn::MulAdd(weight, hn::Load(d, values.zero + t), zeros);
    hn::Store(hn::Mul(weight, hn::Load(d, values.scale + t)), d, scores + t);
  }
  sum += hn::GetLane(hn::SumOfLanes(d, weights));
  zero += hn::GetLane(hn::SumOfLanes(d, zeros));
}

void Weigh(const TileFactors& keys, const float* constants,
           const TileFactors& values, const TileRange* visible, int count,
           float soft_cap, float* scores, SoftmaxRows& state) {
  for (int r = 0; r < state.rows; ++r) {
    const auto finish =
        soft_cap > 0 ? &FinishScores<true> : &FinishScores<false>;
    float* const row = scores + r * kTileTokens;
    const float max = finish(keys, constants[r], visible[r], count, soft_cap,
                             state.max[r], row);
    if (max > state.max[r]) {
      Rescale(std::exp(state.max[r] - max), r, state);
      state.max[r] = max;
    }
    FinishWeights(values, max, count, row, state.sum[r], state.zero[r]);
  }
}

void LoadQueryRow(const void* data, DType dtype, int dim, float factor,
                  float* row) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    const float* const values = LoadRow(d, data, dtype, dim, row);
    const auto by = hn::Set(d, factor);
    for (int i = 0; i < dim; i += NumLanes(d)) {
      hn::StoreU(hn::Mul(hn::LoadU(d, values + i), by), d, row + i);
    }
  });
}

void StoreOutputRow(const float* row, float factor, int dim, void* data,
                    DType dtype) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    HWY_ALIGN float buffer[kMaxDim];
    float* const values =
        dtype == DType::kFloat32 ? static_cast<float*>(data) : buffer;
    const auto by = hn::Set(d, factor);
    for (int i = 0; i < dim; i += NumLanes(d)) {
      hn::StoreU(hn::Mul(hn::LoadU(d, row + i), by), d, values + i);
    }
    if (dtype != DType::kFloat32) StoreRow(d, buffer, dim, data, dtype);
  });
}

void RotateInPlace(const float* signs, int dim, float* row) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    HWY_ALIGN float rotated[kMaxDim];
    RotateRow(d, row, signs, dim, rotated);
    for (int i = 0; i < dim; i += NumLanes(d)) {
      hn::StoreU(hn::Load(d, rotated + i), d, row + i);
    }
  });
}

void RotateBackInPlace(const float* signs, int dim, float* row) {
  WithVectors(dim, [&](auto d) HWY_ATTR {
    HWY_ALIGN float rotated[kMaxDim];
    std::copy_n(row, dim, rotated);
    RotateRowBack(d, rotated, signs, dim, row);
  });
}

const AttentionKernels* KernelsForTarget() {
  static constexpr AttentionKernels kKernels = {
      .load_packed = &LoadPacked,
      .load_halves = &LoadHalfRows,
      .fold_channels = &FoldChannels,
      .score = &Score,
      .weigh = &Weigh,
      .accumulate = &Accumulate,
      .load_row = &LoadQueryRow,
      .store_row = &StoreOutputRow,
      .rotate = &RotateInPlace,
      .rotate_back = &RotateBackInPlace,
  };
  return &kKernels;
}

#else

const AttentionKernels* KernelsForTarget() { return nullptr; }

#endif  // RQ_HAS_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {

HWY_EXPORT(KernelsForTarget);

const AttentionKernels& GetAttentionKernels(Backend backend) {
  if (backend == Backend::kSimd) {
    const AttentionKernels* const kernels =
        HWY_DYNAMIC_DISPATCH(KernelsForTarget)();
    if (kernels != nullptr) return *kernels;
  }
  return ScalarAttentionKernels();
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
