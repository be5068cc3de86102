// Codes of a tile of tokens to floats: levels that a token's scale and zero
// still wait for. Included once per target.

#if defined(RATEQUANT_KERNELS_CPU_LEVEL_TILE_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_CPU_LEVEL_TILE_INL_H_
#undef RATEQUANT_KERNELS_CPU_LEVEL_TILE_INL_H_
#else
#define RATEQUANT_KERNELS_CPU_LEVEL_TILE_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/bits-inl.h"
#include "kernels/cpu/code_levels-inl.h"
#include "kernels/cpu/trellis_levels-inl.h"
#include "kernels/cpu/vector-inl.h"
#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/gain_table.h"
#include "kernels/quantizers/number.h"

#if RQ_HAS_VECTORS
HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

// Parameters of channel groups, applied to the levels.
struct ChannelGroups {
  const float* scales = nullptr;  // of groups in the tile, one after the other
  const float* zeros = nullptr;
  int channels = 0;  // of a group
};

// The packed rows of a tile. Rows lie one after the other and are whole bytes.
struct CodeRows {
  const uint8_t* codes = nullptr;
  size_t readable = 0;  // bytes from `codes` on
  int width = 0;
  int row_codes = 0;  // a multiple of 16, or of 8 for vectors of 8 floats
  int rows = 0;
};

// `count` codes to levels, and on to `finish`(levels).
template <class D, class Levels, class Finish>
HWY_INLINE void UnpackRun(D d, const Levels& levels,
                          const Unpacker<D>& unpacker, const Finish& finish,
                          int step_bytes, int count,
                          const uint8_t* HWY_RESTRICT codes,
                          float* HWY_RESTRICT out) {
  constexpr int kStep = Unpacker<D>::kStep;
#pragma GCC unroll 4
  for (int i = 0; i < count; i += kStep) {
    for (int j = 0; j < kStep; j += NumLanes(D())) {
      hn::StoreU(finish(levels(d, unpacker, codes, j)), d, out + i + j);
    }
    codes += step_bytes;
  }
}

template <class D, class Levels>
HWY_INLINE void UnpackRows(D d, Levels levels, const CodeRows& rows,
                           const ChannelGroups* groups,
                           float* HWY_RESTRICT out) {
  const Unpacker<D> unpacker(d, rows.width);
  const int step_bytes = Unpacker<D>::kStep / 8 * rows.width;
  const int count = rows.rows * rows.row_codes;
  if (groups == nullptr) {
    UnpackRun(
        d, levels, unpacker, [](auto v) HWY_ATTR { return v; }, step_bytes,
        count, rows.codes, out);
    return;
  }
  const auto unpack_groups = [&](auto channels) HWY_ATTR {
    for (int i = 0, group = 0; i < count; i += channels, ++group) {
      const auto scale = hn::Set(d, groups->scales[group]);
      const auto zero = hn::Set(d, groups->zeros[group]);
      UnpackRun(
          d, levels, unpacker,
          [&](auto v) HWY_ATTR { return hn::MulAdd(v, scale, zero); },
          step_bytes, channels, rows.codes + i / 8 * rows.width, out + i);
    }
  };
  // The default is worth an unrolled loop.
  if (groups->channels == 32) {
    unpack_groups(std::integral_constant<int, 32>());
  } else {
    unpack_groups(groups->channels);
  }
}

// Unpacking reads up to kBitSlack bytes beyond the codes; where they aren't
// there, the last rows are read from a copy.
template <class D, class Levels>
HWY_INLINE void UnpackTile(D d, const Levels& levels, CodeRows rows,
                           const ChannelGroups* groups,
                           float* HWY_RESTRICT out) {
  const size_t row_bytes = BytesOfCodes(rows.width, rows.row_codes);
  const size_t last_rows =
      row_bytes * rows.rows + kBitSlack <= rows.readable
          ? 0
          : HWY_MIN((kBitSlack + row_bytes - 1) / row_bytes,
                    static_cast<size_t>(rows.rows));
  CodeRows last = rows;
  last.rows = static_cast<int>(last_rows);
  rows.rows -= last.rows;
  UnpackRows(d, levels, rows, groups, out);
  if (last.rows == 0) return;
  uint8_t copy[kMaxDim + 2 * kBitSlack] = {};
  memcpy(copy, rows.codes + rows.rows * row_bytes, last_rows * row_bytes);
  last.codes = copy;
  const int done = rows.rows * rows.row_codes;
  ChannelGroups last_groups;
  if (groups != nullptr) {
    const int done_groups = done / groups->channels;
    last_groups = {groups->scales + done_groups, groups->zeros + done_groups,
                   groups->channels};
  }
  UnpackRows(d, levels, last, groups != nullptr ? &last_groups : nullptr,
             out + done);
}

template <int kWidth, class D>
HWY_INLINE void UnpackCodebook(D d, const Codebook& codebook,
                               const CodeRows& rows, float* out) {
  using Levels =
      std::conditional_t<(kCodebookEntries<kWidth> > kMaxRegisterEntries<D>),
                         GatheredLevels<D>, CodebookLevels<kWidth, D>>;
  UnpackTile(d, Levels(d, codebook.units.data()), rows, nullptr, out);
}

template <class D>
HWY_INLINE void UnpackCodebook(D d, const Codebook& codebook,
                               const CodeRows& rows, float* out) {
  switch (rows.width) {
    case 1:
      return UnpackCodebook<1>(d, codebook, rows, out);
    case 2:
      return UnpackCodebook<2>(d, codebook, rows, out);
    case 3:
      return UnpackCodebook<3>(d, codebook, rows, out);
    case 4:
      return UnpackCodebook<4>(d, codebook, rows, out);
    case 5:
      return UnpackCodebook<5>(d, codebook, rows, out);
    case 6:
      return UnpackCodebook<6>(d, codebook, rows, out);
    case 7:
      return UnpackCodebook<7>(d, codebook, rows, out);
    case 8:
      return UnpackCodebook<8>(d, codebook, rows, out);
  }
}

template <class D>
void UnpackLevels(D d, const RowPlan& plan, const CodeRows& rows,
                  const ChannelGroups* groups, float* out) {
  const bool codebook = plan.codebook != nullptr;
  if constexpr (NumLanes(D()) == 16) {
    if (rows.width <= 4) {
      HWY_ALIGN float levels[16];
      const IntTag<D> di;
      hn::Store(hn::ConvertTo(d, hn::Iota(di, LevelOffset(plan))), d, levels);
      UnpackTile(
          d,
          RegisterLevels<D>(d, codebook ? plan.codebook->units.data() : levels,
                            rows.width),
          rows, groups, out);
      return;
    }
  }
  if (codebook) return UnpackCodebook(d, *plan.codebook, rows, out);
  UnpackTile(d, UniformLevels<D>(d, LevelOffset(plan)), rows, groups, out);
}

template <int kWidth, class D>
void UnpackTrellis(D d, const Codebook& codebook, const CodeRows& rows,
                   float* HWY_RESTRICT out) {
  const TrellisLevels<kWidth, D> levels(d, codebook);
  const int dim = rows.row_codes;
  const size_t row_bytes = BytesOfCodes(kWidth, dim);
  for (int t = 0; t < rows.rows; ++t) {
    const uint8_t* codes = rows.codes + t * row_bytes;
    uint8_t copy[kMaxDim / 8 * kWidth + kBitSlack];
    if ((t + 1) * row_bytes + kBitSlack > rows.readable) {
      memcpy(copy, codes, row_bytes);
      codes = copy;
    }
    float* const row = out + t * dim;
    levels.ForRow(d, codes, dim, [&](int i, hn::Vec<D> units) HWY_ATTR {
      hn::StoreU(units, d, row + i);
    });
  }
}

template <class D>
void UnpackTrellis(D d, const Codebook& codebook, const CodeRows& rows,
                   float* HWY_RESTRICT out) {
  switch (rows.width) {
    case 1:
      return UnpackTrellis<1>(d, codebook, rows, out);
    case 2:
      return UnpackTrellis<2>(d, codebook, rows, out);
    case 3:
      return UnpackTrellis<3>(d, codebook, rows, out);
    case 4:
      return UnpackTrellis<4>(d, codebook, rows, out);
  }
}

// --- factors ---

// `count` fp16 numbers, nothing behind them is read.
template <class D>
HWY_INLINE void HalvesToFloats(D d, const uint8_t* halves, int count,
                               float* HWY_RESTRICT out) {
  int i = 0;
  for (; i + NumLanes(d) <= count; i += NumLanes(d)) {
    hn::StoreU(LoadHalves(d, halves + 2 * i), d, out + i);
  }
  for (; i < count; ++i) {
    uint16_t half;
    memcpy(&half, halves + 2 * i, sizeof(half));
    out[i] = FloatOfHalf(half);
  }
}

template <class D>
HWY_INLINE void LoadFactors(D d, const RowPlan& plan, const uint8_t* section,
                            int row, int count, TileFactors& factors) {
  if (plan.kind == QuantizerKind::kKivi) {
    std::fill_n(factors.scale, count, 1.0f);
    std::fill_n(factors.zero, count,
                plan.params.block_tokens > 1 ? 1.0f : 0.0f);
    return;
  }
  if (plan.params.param_bytes == 1) {
    const uint8_t* const gains = section + plan.params.ScaleOffset(row, 0);
    const float* const table = GainTable();
    for (int t = 0; t < count; ++t) factors.scale[t] = table[gains[t]];
    std::fill_n(factors.zero, count, 0.0f);
    return;
  }
  HalvesToFloats(d, section + plan.params.ScaleOffset(row, 0), count,
                 factors.scale);
  if (plan.params.has_zero) {
    HalvesToFloats(d, section + plan.params.ZeroOffset(row, 0), count,
                   factors.zero);
    const float middle = -static_cast<float>(LevelOffset(plan));
    for (int t = 0; t < count; ++t) {
      factors.zero[t] += middle * factors.scale[t];
    }
  } else if (plan.kind == QuantizerKind::kRtn && plan.width == 1) {
    // Levels are -1 and 0: (2 code - 1) s = 2 s (code - 1) + s.
    for (int t = 0; t < count; ++t) {
      factors.zero[t] = factors.scale[t];
      factors.scale[t] *= 2.0f;
    }
  } else {
    std::fill_n(factors.zero, count, 0.0f);
  }
}

template <class D>
void LoadPackedTile(D d, const RowPlan& plan, const uint8_t* section,
                    size_t readable, int row, int count, float* tile,
                    TileFactors& factors) {
  const size_t offset = plan.layout.codes_offset + row * plan.layout.row_bytes;
  const CodeRows rows = {.codes = section + offset,
                         .readable = readable - offset,
                         .width = plan.width,
                         .row_codes = plan.dim,
                         .rows = count};
  LoadFactors(d, plan, section, row, count, factors);
  if (plan.trellis) {
    UnpackTrellis(d, *plan.codebook, rows, tile);
    return;
  }
  if (plan.kind == QuantizerKind::kKivi && plan.params.block_tokens == 1) {
    HWY_ALIGN float scales[kTileTokens * kMaxDim / 8];
    HWY_ALIGN float zeros[kTileTokens * kMaxDim / 8];
    const int groups = count * plan.params.per_block;
    HalvesToFloats(d, section + plan.params.ScaleOffset(row, 0), groups,
                   scales);
    HalvesToFloats(d, section + plan.params.ZeroOffset(row, 0), groups, zeros);
    const ChannelGroups channel_groups = {scales, zeros,
                                          plan.params.block_channels};
    UnpackLevels(d, plan, rows, &channel_groups, tile);
    return;
  }
  UnpackLevels(d, plan, rows, nullptr, tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();
#endif  // RQ_HAS_VECTORS

#endif  // RATEQUANT_KERNELS_CPU_LEVEL_TILE_INL_H_
