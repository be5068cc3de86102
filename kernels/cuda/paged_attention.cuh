#ifndef RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_CUH_
#define RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_plan.cuh"
#include "kernels/cuda/attention_unit.cuh"
#include "kernels/cuda/shared_memory.h"

// Decode attention over packed pages, sinks and ring. Blocks work on the pieces
// of attention_plan.cuh; the warps of a block take turns over the units of a
// piece, each with an online softmax of its own, and meet at its end. Queries
// are rotated once a piece and the sums stay rotated: attention_combine.cuh
// turns them back.

namespace ratequant::kv::cuda {

// What a block does next: pages [first, end) of the sequence, those of its
// tokens whose V is packed; or the sinks and the tokens whose V is in the ring.
struct PieceWork {
  int step = 0;
  int head = 0;
  int first = 0;
  int end = 0;
  bool tail = false;
  int index = 0;  // of the piece
};

// One block's work on one piece: one KV head of one step, kRows query rows.
template <class Lanes, int kRows>
class AttentionPiece {
 public:
  using Shared = AttentionShared<Lanes, kRows>;

  __device__ AttentionPiece(const AttentionBatch& batch, const PieceWork& work,
                            int first_row, Shared& shared)
      : batch_(batch),
        memory_(batch.layer.memory),
        work_(work),
        step_(batch.steps[work.step]),
        first_row_(first_row),
        keys_{memory_, memory_.groups[2 * work.head], step_.slot},
        values_{memory_, memory_.groups[2 * work.head + 1], step_.slot},
        key_format_(batch.formats[batch.layer.formats[2 * work.head]]),
        value_format_(batch.formats[batch.layer.formats[2 * work.head + 1]]),
        packed_keys_(keys_.Packed(length(), step_.packed_floor)),
        packed_values_(values_.Packed(length(), step_.packed_floor)),
        shared_(shared),
        unit_(memory_, batch.params.soft_cap, shared) {}

  __device__ void Run() {
    Begin();
    // A tail's sinks come before the first page that has tokens in the ring.
    const int last = (length() - 1) / memory_.page_tokens;
    const int first = work_.tail ? RingPage() - 1 : work_.first;
    const int end = work_.tail ? max(RingPage(), last + 1) : work_.end;
    for (int page = first; page < end; ++page) RunTokens(TokensOf(page));
    Finish();
  }

 private:
  __device__ int length() const { return step_.begin + step_.count; }

  __device__ static void LoadUnits(const SectionFormat& format, float* units) {
    if (format.kind != CodeKind::kCodebookRow) return;
    CopyTable(format.units, 1 << format.index_width, units);
  }

  // Tokens [begin, end) of a page, and the sections of K and V there; null
  // where all are in fp16 outside.
  struct Tokens {
    int begin;
    int end;
    const uint8_t* key_section;
    const uint8_t* value_section;
  };

  __device__ int RingPage() const {
    return max(packed_values_, memory_.sink_tokens) / memory_.page_tokens;
  }

  __device__ Tokens TokensOf(int page) {
    const int page_begin = page * memory_.page_tokens;
    const int page_end = page_begin + memory_.page_tokens;
    if (!work_.tail) {
      const uint8_t* const bytes =
          memory_.pages + Entry(page) * memory_.page_bytes;
      return {max(page_begin, memory_.sink_tokens),
              min(page_end, packed_values_), bytes + keys_.place.section_offset,
              bytes + values_.place.section_offset};
    }
    if (page < RingPage()) {
      return {0, min(memory_.sink_tokens, length()), nullptr, nullptr};
    }
    const int begin = max(page_begin, max(packed_values_, memory_.sink_tokens));
    const bool packed = begin < min(page_end, packed_keys_);
    return {begin, min(page_end, length()),
            packed ? keys_.Section(begin) : nullptr, nullptr};
  }

  // The pool's page that is page `page` of the sequence. The table is read 32
  // entries at a time: no load waits for another.
  __device__ int Entry(int page) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const int turn = (page - work_.first) % kWarpLanes;
    if (turn == 0 && page + lane < work_.end) {
      entries_ = memory_.block_table[static_cast<int64_t>(step_.slot) *
                                         memory_.max_blocks +
                                     page + lane];
    }
    return __shfl_sync(kAllLanes, entries_, turn);
  }

  __device__ void RunTokens(const Tokens& tokens) {
    const int size = min(unit_.kTokens, memory_.page_tokens);
    for (int first = tokens.begin; first < tokens.end;) {
      // K that isn't packed yet comes from the ring.
      const bool packed = tokens.key_section != nullptr && first < packed_keys_;
      const int block = keys_.place.block_tokens;
      // Units lie at multiples of their size: in one page, one block of tokens.
      const int unit = packed && block > 1 ? min(size, block) : size;
      const int next = min((first | (unit - 1)) + 1,
                           packed ? min(tokens.end, packed_keys_) : tokens.end);
      if (turn_ == Lanes::Warp()) {
        unit_.Run(first, next - first,
                  {keys_, key_format_, packed ? tokens.key_section : nullptr},
                  {values_, value_format_, tokens.value_section});
      }
      turn_ = (turn_ + 1) % kSectionWarps;
      first = next;
    }
  }

  __device__ void Begin();
  __device__ void PrepareQueries();
  __device__ void LoadQuery(int row, float (&values)[kOctet]) const;
  __device__ void Finish();

  const AttentionBatch& batch_;
  const LayerMemory& memory_;
  const PieceWork& work_;
  const SequenceStep step_;
  const int first_row_;
  const PagedGroup keys_;
  const PagedGroup values_;
  const SectionFormat& key_format_;
  const SectionFormat& value_format_;
  const int packed_keys_;
  const int packed_values_;
  Shared& shared_;
  AttentionUnit<Lanes, kRows> unit_;
  int entries_ = 0;
  int turn_ = 0;
};

template <class Lanes, int kRows>
__device__ void AttentionPiece<Lanes, kRows>::Begin() {
  LoadUnits(key_format_, shared_.units[0]);
  LoadUnits(value_format_, shared_.units[1]);
  PrepareQueries();
  __syncthreads();
  // The positions that the row of this lane's scores sees.
  const int row = first_row_ + unit_.OwnRow();
  const int position = step_.begin + row / batch_.heads_per_kv;
  const int sliding = batch_.params.sliding_window;
  const bool exists = row < batch_.RowsOf(step_);
  unit_.Begin(sliding > 0 ? position - sliding + 1 : 0,
              exists ? position + 1 : 0, work_.tail ? nullptr : &value_format_);
}

// Eight channels of query row `row` of the piece, scaled; zeros where there is
// no such row.
template <class Lanes, int kRows>
__device__ void AttentionPiece<Lanes, kRows>::LoadQuery(
    int row, float (&values)[kOctet]) const {
  const int channel = Lanes::FirstChannel(0);
  const int all = first_row_ + row;
  if (row >= kRows || all >= batch_.RowsOf(step_) ||
      channel >= memory_.head_dim) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] = 0.0f;
    return;
  }
  const int head = work_.head * batch_.heads_per_kv + all % batch_.heads_per_kv;
  const int token = step_.first_row + all / batch_.heads_per_kv;
  switch (batch_.queries.dtype) {
    case DType::kFloat32:
      LoadOctet<DType::kFloat32>(
          HeadRow<DType::kFloat32>(batch_.queries, head, token, channel),
          values);
      break;
    case DType::kFloat16:
      LoadOctet<DType::kFloat16>(
          HeadRow<DType::kFloat16>(batch_.queries, head, token, channel),
          values);
      break;
    case DType::kBFloat16:
      LoadOctet<DType::kBFloat16>(
          HeadRow<DType::kBFloat16>(batch_.queries, head, token, channel),
          values);
      break;
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) values[i] *= batch_.params.softmax_scale;
}

template <class Lanes, int kRows>
__device__ void AttentionPiece<Lanes, kRows>::PrepareQueries() {
  const CodeKind kind = key_format_.kind;
  const SignBits<Lanes> signs = SignBits<Lanes>::Of(key_format_.seed);
  const int channel = Lanes::FirstChannel(0);
  for (int base = Lanes::Warp() * Lanes::kRowsPerWarp; base < kRows;
       base += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = base + Lanes::RowSlot();
    typename Lanes::Values values;
    LoadQuery(row, values[0]);
    if (row < kRows) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        shared_.query.plain[row][channel + i] = values[0][i];
      }
    }
    if (kind == CodeKind::kRotatedRow || kind == CodeKind::kCodebookRow) {
      RotateRows<Lanes>(signs, values);
    }
    const float sum = FoldSumOfRows<Lanes>(values);
    if (row >= kRows) continue;
    if (Lanes::LaneInRow() == 0) shared_.query_sums[row] = sum;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      shared_.query.packed[row][channel + i] =
          kind == CodeKind::kCodebookRow
              ? values[0][i]
              : values[0][i] * (kCodeLift * PairFactor(i, key_format_.width));
    }
  }
}

template <class Lanes, int kRows>
__device__ void AttentionPiece<Lanes, kRows>::Finish() {
  __syncthreads();  // the queries' memory is free
  unit_.Finish();
  __syncthreads();
  const int64_t first =
      static_cast<int64_t>(work_.index) * batch_.rows + first_row_;
  for (int i = threadIdx.x; i < kRows * memory_.head_dim;
       i += kSectionThreads) {
    const int row = i / memory_.head_dim;
    const int channel = i % memory_.head_dim;
    float highest = kNoScore;
#pragma unroll
    for (int warp = 0; warp < kSectionWarps; ++warp) {
      highest = fmaxf(highest, shared_.stats[warp][row].highest);
    }
    float sum = 0.0f, total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kSectionWarps; ++warp) {
      const RowStats& stats = shared_.stats[warp][row];
      const float weight = exp2f(stats.highest - highest);
      sum = __fmaf_rn(weight, stats.sum, sum);
      total = __fmaf_rn(weight, shared_.sums[warp][row][channel] + stats.offset,
                        total);
    }
    batch_.sums[(first + row) * memory_.head_dim + channel] = total;
    if (channel != 0) continue;
    batch_.stats[(first + row) * 2] = highest;
    batch_.stats[(first + row) * 2 + 1] = sum;
  }
  __syncthreads();  // before the next piece
}

// Last of `count` ascending numbers that isn't above `limit`, scaled; the first
// is. The same for all lanes of a warp.
__device__ __forceinline__ int LastNotAbove(const int32_t* numbers, int count,
                                            int64_t scale, int64_t limit) {
  int found = 0;
  for (int base = 0; base < count; base += kWarpLanes) {
    const int i = base + static_cast<int>(threadIdx.x) % kWarpLanes;
    found += __popc(
        __ballot_sync(kAllLanes, i < count && numbers[i] * scale <= limit));
  }
  return found - 1;
}

// The pieces of a block, one after the other.
class PieceCursor {
 public:
  __device__ PieceCursor(const AttentionBatch& batch, int first_row)
      : batch_(batch),
        first_row_(first_row),
        cta_(static_cast<int>(blockIdx.x)),
        kv_heads_(batch.layer.memory.kv_heads) {
    if (cta_ >= batch.num_ctas) {
      step_ = (cta_ - batch.num_ctas) / kv_heads_;
      head_ = (cta_ - batch.num_ctas) % kv_heads_;
      return;
    }
    begin_ = cta_ * *batch.share;
    end_ = begin_ + *batch.share;
    const int64_t page_bytes = batch.head_bytes[kv_heads_];
    if (begin_ >= batch.pages_before[batch.num_steps] * page_bytes) {
      step_ = batch.num_steps;
      return;
    }
    step_ =
        LastNotAbove(batch.pages_before, batch.num_steps, page_bytes, begin_);
    head_ = LastNotAbove(batch.head_bytes, kv_heads_,
                         PairSpan::Of(batch, step_, 0).pages,
                         begin_ - batch.pages_before[step_] * page_bytes);
  }

  // False when there are no more.
  __device__ bool Next(PieceWork& work) {
    while (step_ < batch_.num_steps) {
      work.step = step_;
      work.head = head_;
      const SequenceStep& step = batch_.steps[step_];
      const bool has_rows = batch_.RowsOf(step) > first_row_;
      const int pair = step_ * kv_heads_ + head_;
      if (cta_ >= batch_.num_ctas) {
        work.tail = true;
        work.index = batch_.TailOf(pair);
        step_ = batch_.num_steps;
        return has_rows;
      }
      const PairSpan span = PairSpan::Of(batch_, step_, head_);
      if (span.start >= end_) return false;
      const PageRange range = PagesOf(batch_, step);
      work.first = range.first + span.PageAt(begin_);
      work.end = range.first + span.PageAt(end_);
      work.index = pair + cta_;
      head_ = head_ + 1 == kv_heads_ ? 0 : head_ + 1;
      step_ += head_ == 0 ? 1 : 0;
      if (work.first < work.end && has_rows) return true;
    }
    return false;
  }

 private:
  const AttentionBatch& batch_;
  const int first_row_;
  const int cta_;
  const int kv_heads_;
  int64_t begin_ = 0;  // bytes of the line
  int64_t end_ = 0;
  int step_ = 0;
  int head_ = 0;
};

// Blocks (x, y): x below num_ctas are the plan's CTAs, the rest the pairs'
// tails; y is a group of kRows query rows.
template <class Lanes, int kRows>
__global__ void __launch_bounds__(kSectionThreads, kRows == 8 ? 2 : 3)
    AttendKernel(AttentionBatch batch) {
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  PieceCursor cursor(batch, first_row);
  PieceWork work;
  while (cursor.Next(work)) {
    AttentionPiece<Lanes, kRows>(batch, work, first_row,
                                 SharedAs<AttentionShared<Lanes, kRows>>())
        .Run();
  }
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGED_ATTENTION_CUH_
