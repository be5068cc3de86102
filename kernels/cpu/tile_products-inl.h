// Products of query rows with a tile of tokens. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_TILE_PRODUCTS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#undef RATEQUANT_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#endif

#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/vector-inl.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Query rows at a time: with 4 tokens or 4 vectors of channels, as many sums as
// the registers hold.
#undef RQ_BLOCK_ROWS
#if HWY_TARGET == HWY_AVX2
#define RQ_BLOCK_ROWS 2
#else
#define RQ_BLOCK_ROWS 4
#endif
inline constexpr int kBlockRows = RQ_BLOCK_ROWS;
inline constexpr int kBlockTokens = 4;

// The sums of four vectors' lanes, to out[0..3].
template <class D>
HWY_INLINE void StoreSums(D d, const hn::Vec<D> (&v)[4],
                          float* HWY_RESTRICT out) {
  const hn::Repartition<double, D> dd;
  // In each block of 4 lanes, first a0 + a2, b0 + b2, a1 + a3, b1 + b3.
  const auto ab = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, v[0], v[1]),
                                          hn::InterleaveUpper(d, v[0], v[1])));
  const auto ce = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, v[2], v[3]),
                                          hn::InterleaveUpper(d, v[2], v[3])));
  auto sum = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, ab, ce)),
                     hn::BitCast(d, hn::InterleaveUpper(dd, ab, ce)));
  constexpr int kLanes = NumLanes(D());
  if constexpr (kLanes > 8) sum = hn::Add(sum, SwapLanes<8>(d, sum));
  if constexpr (kLanes > 4) sum = hn::Add(sum, SwapLanes<4>(d, sum));
  const hn::CappedTag<float, 4> d4;
  if constexpr (kLanes == 16) {
    const hn::CappedTag<float, 8> d8;
    hn::StoreU(hn::LowerHalf(d4, hn::LowerHalf(d8, sum)), d4, out);
  } else if constexpr (kLanes == 8) {
    hn::StoreU(hn::LowerHalf(d4, sum), d4, out);
  } else {
    hn::StoreU(sum, d4, out);
  }
}

template <int kRows, class D>
HWY_INLINE void ScoreRows(D d, const float* HWY_RESTRICT queries,
                          const float* HWY_RESTRICT tile, int count, int dim,
                          float* HWY_RESTRICT scores) {
  for (int t = 0; t < count; t += kBlockTokens) {
    const float* const tokens = tile + t * dim;
    hn::Vec<D> sums[kRows][kBlockTokens];
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kBlockTokens; ++k) sums[r][k] = hn::Zero(d);
    }
    for (int i = 0; i < dim; i += NumLanes(d)) {
      hn::Vec<D> levels[kBlockTokens];
      for (int k = 0; k < kBlockTokens; ++k) {
        levels[k] = hn::LoadU(d, tokens + k * dim + i);
      }
      for (int r = 0; r < kRows; ++r) {
        const auto query = hn::LoadU(d, queries + r * dim + i);
        for (int k = 0; k < kBlockTokens; ++k) {
          sums[r][k] = hn::MulAdd(query, levels[k], sums[r][k]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      StoreSums(d, sums[r], scores + r * kTileTokens + t);
    }
  }
}

// kVectors vectors of channels.
template <int kRows, int kVectors, class D>
HWY_INLINE void AccumulateRows(D d, const float* HWY_RESTRICT weights,
                               const float* HWY_RESTRICT tile, int count,
                               int dim, float* HWY_RESTRICT sums) {
  hn::Vec<D> totals[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      totals[r][v] = hn::LoadU(d, sums + r * dim + v * NumLanes(d));
    }
  }
  for (int t = 0; t < count; ++t) {
    hn::Vec<D> levels[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      levels[v] = hn::LoadU(d, tile + t * dim + v * NumLanes(d));
    }
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(d, weights[r * kTileTokens + t]);
      for (int v = 0; v < kVectors; ++v) {
        totals[r][v] = hn::MulAdd(weight, levels[v], totals[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(totals[r][v], d, sums + r * dim + v * NumLanes(d));
    }
  }
}

template <int kRows, class D>
HWY_INLINE void AccumulateChannels(D d, const float* HWY_RESTRICT weights,
                                   const float* HWY_RESTRICT tile, int count,
                                   int dim, float* HWY_RESTRICT sums) {
  constexpr int kVectors = 4;
  constexpr int kLanes = NumLanes(D());
  int c = 0;
  for (; c + kVectors * kLanes <= dim; c += kVectors * kLanes) {
    AccumulateRows<kRows, kVectors>(d, weights, tile + c, count, dim, sums + c);
  }
  for (; c < dim; c += kLanes) {
    AccumulateRows<kRows, 1>(d, weights, tile + c, count, dim, sums + c);
  }
}

// Calls product(rows, first row) with as many rows at a time as can be, the
// number being a compile-time constant.
template <class Product>
HWY_INLINE void ForRowBlocks(int rows, const Product& product) {
  int r = 0;
  for (; r + kBlockRows <= rows; r += kBlockRows) {
    product(std::integral_constant<int, kBlockRows>(), r);
  }
  switch (rows - r) {
    case 1:
      return product(std::integral_constant<int, 1>(), r);
    case 2:
      return product(std::integral_constant<int, 2>(), r);
    case 3:
      return product(std::integral_constant<int, 3>(), r);
  }
}

template <class D>
void ScoreTile(D d, const float* queries, int rows, const float* tile,
               int count, int dim, float* scores) {
  ForRowBlocks(rows, [&](auto block, int r) HWY_ATTR {
    ScoreRows<block.value>(d, queries + r * dim, tile, count, dim,
                           scores + r * kTileTokens);
  });
}

template <class D>
void AccumulateTile(D d, const float* weights, int rows, const float* tile,
                    int count, int dim, float* sums) {
  ForRowBlocks(rows, [&](auto block, int r) HWY_ATTR {
    AccumulateChannels<block.value>(d, weights + r * kTileTokens, tile, count,
                                    dim, sums + r * dim);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_TILE_PRODUCTS_INL_H_
