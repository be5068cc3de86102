#ifndef RATEQUANT_KERNELS_CUDA_ATTENTION_UNIT_CUH_
#define RATEQUANT_KERNELS_CUDA_ATTENTION_UNIT_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_codes.cuh"
#include "kernels/cuda/paged_rows.cuh"

// Attention of a few query rows over a unit of tokens, by one warp. Lanes share
// out a token as RowLanes says, an octet of channels each: they hold the
// queries' and the sums' channels in registers, and every octet of K and of V
// is loaded and unpacked once for all query rows.

namespace ratequant::kv::cuda {

// Below every score, and finite: differences with it aren't NaN.
__device__ constexpr float kNoScore = -1e30f;

struct RowStats {
  float highest;  // score, in units of ln 2
  float sum;      // of 2^(score - highest)
  float offset;   // of V's zeros, weighted: the same for all channels
};

template <class Lanes, int kRows>
struct AttentionShared {
  float units[2][kMaxCodebook];  // codebooks of K and V
  float query_sums[kRows];       // over the channels, as `packed` but unscaled
  RowStats stats[kSectionWarps][kRows];
  union {
    struct {
      float plain[kRows][Lanes::kMaxDim];
      // Rotated and scaled as K's codes need it.
      float packed[kRows][Lanes::kMaxDim];
    } query;
    float sums[kSectionWarps][kRows][Lanes::kMaxDim];
  };
};

// Where one tensor's tokens are: in a section, or in fp16 outside the pages.
struct UnitRows {
  const PagedGroup& group;
  const SectionFormat& format;
  const uint8_t* section;  // null: outside

  __device__ bool coded() const {
    return section != nullptr && format.kind != CodeKind::kHalf;
  }
  __device__ const uint8_t* PackedRow(int position) const {
    return section + format.codes_offset +
           group.PageRow(position) * static_cast<int>(format.row_bytes);
  }
  __device__ const uint16_t* HalfRow(int position) const {
    return section == nullptr
               ? group.HalfRow(position)
               : reinterpret_cast<const uint16_t*>(PackedRow(position));
  }
};

template <class Lanes, int kRows>
class AttentionUnit {
 public:
  using Shared = AttentionShared<Lanes, kRows>;

  // Tokens of a unit for each lane, and in all.
  static constexpr int kBatch = kRows == 8 ? 4 : 8;
  static constexpr int kTokens = kBatch * Lanes::kRowsPerWarp;

  __device__ AttentionUnit(const LayerMemory& memory, float soft_cap,
                           Shared& shared)
      : head_dim_(memory.head_dim), soft_cap_(soft_cap), shared_(shared) {}

  // The query row whose scores this lane owns.
  static __device__ int OwnRow() { return Lanes::LaneInRow() / kLanesOfQuery; }

  // The lane's row sees positions [first_seen, end_seen). All tokens have V in
  // `value_format`, or, null, in fp16.
  __device__ void Begin(int first_seen, int end_seen,
                        const SectionFormat* value_format);

  // Adds tokens [first, first + count), at most kTokens, of one page and one
  // block of tokens.
  __device__ void Run(int first, int count, const UnitRows& keys,
                      const UnitRows& values);

  // Writes the warp's stats and sums to shared memory.
  __device__ void Finish();

 private:
  // kBatch * kRows scores a unit and row of lanes; each lane owns kOwned of
  // them, side by side, all of one query row; kCopies lanes own the same.
  static constexpr int kScores = kBatch * kRows;
  static constexpr int kOwned =
      kScores > Lanes::kLanes ? kScores / Lanes::kLanes : 1;
  static constexpr int kCopies =
      kScores > Lanes::kLanes ? 1 : Lanes::kLanes / kScores;
  static constexpr int kLanesOfQuery = Lanes::kLanes / kRows;
  static_assert(kLanesOfQuery >= 1 && Lanes::kOctets == 1);

  static __device__ int OwnToken(int k) {
    return (Lanes::LaneInRow() / kCopies * kOwned + k) % kBatch *
               Lanes::kRowsPerWarp +
           Lanes::RowSlot();
  }
  // What the lane that owns it has for token `i` of this lane, query row `row`.
  static __device__ float FromOwner(const float (&owned)[kOwned], int i,
                                    int row) {
    const int index = row * kBatch + i;
    return __shfl_sync(
        kAllLanes, owned[index % kOwned],
        Lanes::RowSlot() * Lanes::kLanes + index / kOwned * kCopies);
  }
  __device__ bool HasChannels() const {
    return Lanes::FirstChannel(0) < head_dim_;
  }
  // Tokens that the lane loads, of `count`.
  __device__ int LaneTokens(int count) const {
    const int tokens = (count - Lanes::RowSlot() + Lanes::kRowsPerWarp - 1) /
                       Lanes::kRowsPerWarp;
    return HasChannels() ? tokens : 0;
  }
  __device__ void LoadUnitCodes(int first, int count, const UnitRows& rows,
                                uint64_t (&codes)[kBatch]) const {
    const int width = rows.format.width;
    const int row_bytes = static_cast<int>(rows.format.row_bytes);
    LoadCodes(rows.PackedRow(first) + Lanes::RowSlot() * row_bytes +
                  Lanes::LaneInRow() * width,
              Lanes::kRowsPerWarp * row_bytes, width, LaneTokens(count), codes);
  }
  // Calls use(i, values) with the lane's octet of each of its tokens: codes as
  // floats, units of a codebook, or fp16 values.
  template <class Use>
  __device__ void ForEachToken(int first, int count, const UnitRows& rows,
                               const uint64_t (&codes)[kBatch],
                               const float* units, const Use& use) const;

  __device__ void PrepareQueries(int first, const UnitRows& keys);
  __device__ void Score(int first, int count, const UnitRows& keys,
                        const uint64_t (&codes)[kBatch],
                        float (&owned)[kOwned]);
  __device__ void Softmax(float (&owned)[kOwned]);
  __device__ void WeighRows(int first, int count, const UnitRows& values,
                            float (&owned)[kOwned]);
  __device__ void Accumulate(int first, int count, const UnitRows& values,
                             const uint64_t (&codes)[kBatch],
                             const float (&owned)[kOwned]);

  const int head_dim_;
  const float soft_cap_;
  Shared& shared_;
  int value_width_ = 0;        // 0: sums have no factors
  bool value_groups_ = false;  // V has parameters for groups of channels
  int first_seen_ = 0;
  int end_seen_ = 0;

  // Of the lane's own row.
  float highest_ = kNoScore;
  float sum_ = 0.0f;
  float offset_ = 0.0f;
  // Of the lane's channels.
  float query_[kRows][kOctet];
  float query_zero_[kRows];  // <query, K's zeros>, where K has one a channel
  float sums_[kRows][kOctet];
  float group_offset_[kRows];
};

template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Begin(
    int first_seen, int end_seen, const SectionFormat* value_format) {
  first_seen_ = first_seen;
  end_seen_ = end_seen;
  if (value_format != nullptr) {
    const CodeKind kind = value_format->kind;
    value_groups_ = kind == CodeKind::kAsymmetricRow;
    if (kind != CodeKind::kHalf && kind != CodeKind::kCodebookRow) {
      value_width_ = value_format->width;
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    group_offset_[row] = 0.0f;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sums_[row][i] = 0.0f;
  }
}

template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Run(int first, int count,
                                                 const UnitRows& keys,
                                                 const UnitRows& values) {
  // V's codes are on their way while scores are computed.
  uint64_t key_codes[kBatch], value_codes[kBatch];
  if (keys.coded()) LoadUnitCodes(first, count, keys, key_codes);
  if (values.coded()) LoadUnitCodes(first, count, values, value_codes);
  float owned[kOwned];
  PrepareQueries(first, keys);
  Score(first, count, keys, key_codes, owned);
  Softmax(owned);
  WeighRows(first, count, values, owned);
  Accumulate(first, count, values, value_codes, owned);
}

template <class Lanes, int kRows>
template <class Use>
__device__ void AttentionUnit<Lanes, kRows>::ForEachToken(
    int first, int count, const UnitRows& rows, const uint64_t (&codes)[kBatch],
    const float* units, const Use& use) const {
  const int width = rows.format.width;
  float values[kOctet];
  if (!rows.coded()) {
    const int tokens = LaneTokens(count);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (i < tokens) {
        LoadOctet<DType::kFloat16>(
            rows.HalfRow(first + i * Lanes::kRowsPerWarp + Lanes::RowSlot()) +
                Lanes::FirstChannel(0),
            values);
      } else {
#pragma unroll
        for (int j = 0; j < kOctet; ++j) values[j] = 0.0f;
      }
      use(i, values);
    }
  } else if (rows.format.kind != CodeKind::kCodebookRow) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      CodesAsFloats(codes[i], width, values);
      use(i, values);
    }
  } else if (!rows.format.has_trellis()) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      CodesAsUnits(codes[i], width, units, values);
      use(i, values);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const auto octet = static_cast<uint32_t>(codes[i]);
      TrellisCodesAsUnits(octet, FromPreviousLane<Lanes>(octet), width, units,
                          values);
      use(i, values);
    }
  }
}

// Queries as the unit's K needs them. Scales of K's channels go into them, once
// for a block of tokens, and its zeros become a number that all its tokens
// share.
template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::PrepareQueries(
    int first, const UnitRows& keys) {
  const int channel = Lanes::FirstChannel(0);
  const auto& from = keys.coded() && keys.format.kind != CodeKind::kChannel
                         ? shared_.query.packed
                         : shared_.query.plain;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    query_zero_[row] = 0.0f;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) query_[row][i] = from[row][channel + i];
  }
  if (!keys.coded() || keys.format.kind != CodeKind::kChannel ||
      !HasChannels()) {
    return;
  }
  const ParamLayout& params = keys.format.params;
  const int token = keys.group.PageRow(first);
  float scales[kOctet], zeros[kOctet];
  LoadOctet<DType::kFloat16>(keys.section + params.ScaleOffset(token, channel),
                             scales);
  LoadOctet<DType::kFloat16>(keys.section + params.ZeroOffset(token, channel),
                             zeros);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    zeros[i] *= 1.0f / kCodeUnlift;
    scales[i] *= kCodeLift * PairFactor(i, keys.format.width);
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      query_zero_[row] = __fmaf_rn(query_[row][i], zeros[i], query_zero_[row]);
      query_[row][i] *= scales[i];
    }
  }
}

// The lane's own scores, in units of ln 2; those that its row doesn't see are
// minus infinity.
template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Score(
    int first, int count, const UnitRows& keys, const uint64_t (&codes)[kBatch],
    float (&owned)[kOwned]) {
  float dots[kScores];
  ForEachToken(first, count, keys, codes, shared_.units[0],
               [&](int i, const float(&values)[kOctet]) {
#pragma unroll
                 for (int row = 0; row < kRows; ++row) {
                   float dot = query_zero_[row];
#pragma unroll
                   for (int j = 0; j < kOctet; ++j) {
                     dot = __fmaf_rn(query_[row][j], values[j], dot);
                   }
                   dots[row * kBatch + i] = dot;
                 }
               });
  SumOverLanes<kScores, Lanes::kLanes>(dots);

  const CodeKind kind = keys.format.kind;
  const float unlift =
      keys.coded() && kind != CodeKind::kCodebookRow ? kCodeUnlift : 1.0f;
  constexpr float kLog2E = 1.44269504f;
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    const int token = OwnToken(k);
    const int position = first + token;
    if (token >= count || position < first_seen_ || position >= end_seen_) {
      owned[k] = -INFINITY;
      continue;
    }
    float score = dots[k] * unlift;
    if (keys.coded() && kind != CodeKind::kChannel) {
      const RowParams params = LoadRowParams(keys.format, keys.section,
                                             keys.group.PageRow(position), 0);
      score = __fmaf_rn(params.zero, shared_.query_sums[OwnRow()],
                        score * params.scale);
    }
    if (soft_cap_ > 0.0f) score = soft_cap_ * tanhf(score / soft_cap_);
    owned[k] = score * kLog2E;
  }
}

// Scores become weights; what was summed up is scaled down where a row has a
// new highest score.
template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Softmax(float (&owned)[kOwned]) {
  float highest = highest_;
#pragma unroll
  for (int k = 0; k < kOwned; ++k) highest = fmaxf(highest, owned[k]);
#pragma unroll
  for (int step = kCopies; step < kWarpLanes; step *= 2) {
    if (step >= kLanesOfQuery && step < Lanes::kLanes) continue;
    highest = fmaxf(highest, ShuffleXor(highest, step));
  }
  const float decay = exp2f(highest_ - highest);
  highest_ = highest;
  sum_ *= decay;
  offset_ *= decay;
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    owned[k] = exp2f(owned[k] - highest);
    sum_ += owned[k];
  }
  if (!__any_sync(kAllLanes, decay != 1.0f)) return;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const float mine = __shfl_sync(kAllLanes, decay, row * kLanesOfQuery);
    group_offset_[row] *= mine;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sums_[row][i] *= mine;
  }
}

// Puts what V has once a token into the tokens' weights.
template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::WeighRows(int first, int count,
                                                       const UnitRows& values,
                                                       float (&owned)[kOwned]) {
  if (!values.coded() || value_groups_) return;
  const float lift = value_width_ > 0 ? kCodeLift : 1.0f;
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    const int token = OwnToken(k);
    if (token >= count) continue;
    const RowParams params = LoadRowParams(
        values.format, values.section, values.group.PageRow(first + token), 0);
    offset_ = __fmaf_rn(owned[k], params.zero, offset_);
    owned[k] *= params.scale * lift;
  }
}

template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Accumulate(
    int first, int count, const UnitRows& values,
    const uint64_t (&codes)[kBatch], const float (&owned)[kOwned]) {
  const bool groups = values.coded() && value_groups_;
  const int tokens = LaneTokens(count);
  const int group =
      groups ? Lanes::FirstChannel(0) / values.format.params.block_channels : 0;
  ForEachToken(first, count, values, codes, shared_.units[1],
               [&](int i, const float(&octet)[kOctet]) {
                 RowParams params{1.0f, 0.0f};
                 if (groups && i < tokens) {
                   params = LoadRowParams(
                       values.format, values.section,
                       values.group.PageRow(first + i * Lanes::kRowsPerWarp +
                                            Lanes::RowSlot()),
                       group);
                   params.scale *= kCodeLift;
                 }
#pragma unroll
                 for (int row = 0; row < kRows; ++row) {
                   float weight = FromOwner(owned, i, row);
                   if (groups) {
                     group_offset_[row] =
                         __fmaf_rn(weight, params.zero, group_offset_[row]);
                     weight *= params.scale;
                   }
#pragma unroll
                   for (int j = 0; j < kOctet; ++j) {
                     sums_[row][j] = __fmaf_rn(weight, octet[j], sums_[row][j]);
                   }
                 }
               });
}

template <class Lanes, int kRows>
__device__ void AttentionUnit<Lanes, kRows>::Finish() {
#pragma unroll
  for (int step = kCopies; step < kWarpLanes; step *= 2) {
    if (step >= kLanesOfQuery && step < Lanes::kLanes) continue;
    sum_ += ShuffleXor(sum_, step);
    offset_ += ShuffleXor(offset_, step);
  }
  const int warp = Lanes::Warp();
  if (Lanes::RowSlot() == 0 && Lanes::LaneInRow() % kLanesOfQuery == 0) {
    shared_.stats[warp][OwnRow()] = {highest_, sum_, offset_};
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      float total = sums_[row][i];
      if (value_width_ > 0) total *= kCodeUnlift * PairFactor(i, value_width_);
      total += group_offset_[row];
#pragma unroll
      for (int step = Lanes::kLanes; step < kWarpLanes; step *= 2) {
        total += ShuffleXor(total, step);
      }
      if (Lanes::RowSlot() == 0) {
        shared_.sums[warp][row][Lanes::FirstChannel(0) + i] = total;
      }
    }
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ATTENTION_UNIT_CUH_
