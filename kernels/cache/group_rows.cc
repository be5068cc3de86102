#include "kernels/cache/group_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/cache/half_rows.h"
#include "kernels/quantizers/codec_base.h"
#include "kernels/quantizers/limits.h"

namespace ratequant::kv {
namespace {

// Rows that are brought into fp16 at a time: whole blocks.
constexpr int kScratchTokens = 32;
constexpr int kScratchValues = 128 * kMaxHeadDim;
static_assert(kScratchValues >= kScratchTokens * kMaxHeadDim);

}  // namespace

absl::Status GroupRows::Pack(const SequenceStep& step,
                             const ConstRows& input) const {
  absl::Status status = CheckStored(step, input);
  uint16_t scratch[kScratchValues];
  const int block = place_.block_tokens;
  const int sinks = memory_.sink_tokens;
  const int end = Packed(step.begin + step.count, step.packed_floor);
  // Blocks of nothing but sinks stay zero, as the codec would leave them.
  int first =
      std::max(Packed(step.begin, step.packed_floor), sinks - sinks % block);
  while (status.ok() && first < end) {
    const int page = first - first % memory_.page_tokens;
    // Rows of the input are read where they lie, unless something is taken off
    // them; others a scratch at a time.
    const int most = first >= step.begin && mean_ == nullptr
                         ? memory_.page_tokens
                         : std::max(kScratchTokens, block);
    const int count =
        std::min({end, page + memory_.page_tokens, first + most}) - first;
    status = codec_.Encode(
        RowsToEncode(first, count, step, input, scratch), first - page, count,
        std::clamp(sinks - page, 0, memory_.page_tokens), Section(first));
    first += count;
  }
  return status;
}

// Of the rows that Store writes, and of those that are packed together with
// rows of the ring; the codec checks the others.
absl::Status GroupRows::CheckStored(const SequenceStep& step,
                                    const ConstRows& input) const {
  const int end = step.begin + step.count;
  const int packed = Packed(end, step.packed_floor);
  const auto has_bad = [&](int first, int last) {
    first = std::max(first, step.begin);
    last = std::min(last, end);
    return first < last && FindBadValue(RowsFrom(input, first - step.begin),
                                        last - first, dim(), mean_)
                                   .row >= 0;
  };
  const int mixed = packed > step.begin ? kScratchTokens : 0;
  // The codec doesn't see what the mean is taken off.
  if (mean_ != nullptr && has_bad(step.begin, end)) {
    return absl::DataLossError("a value that fp16 can't hold");
  }
  if (has_bad(step.begin, step.begin + std::max(mixed, place_.block_tokens)) ||
      has_bad(step.begin, memory_.sink_tokens) || has_bad(packed, end)) {
    return absl::DataLossError("a value that fp16 can't hold");
  }
  return absl::OkStatus();
}

void GroupRows::Unpack(const SequenceStep& step) const {
  int first = Packed(step.begin, step.packed_floor);
  const int end = Packed(step.begin + step.count, step.packed_floor);
  while (first < end) {
    const int page = first - first % memory_.page_tokens;
    const int last = std::min(end, page + memory_.page_tokens);
    ClearRows(first, last);
    first = last;
  }
}

// Of one page.
void GroupRows::ClearRows(int first, int end) const {
  const RowPlan& plan = PlanOf(codec_);
  uint8_t* const section = memory_.Section(slot_, place_, first);
  const int row = first % memory_.page_tokens, count = end - first;
  std::memset(section + plan.layout.codes_offset + row * plan.layout.row_bytes,
              0, count * plan.layout.row_bytes);
  const size_t params = plan.params.per_block * plan.params.param_bytes;
  if (params == 0) return;
  for (int t = row; t < row + count; t += plan.params.block_tokens) {
    std::memset(section + plan.params.ScaleOffset(t, 0), 0, params);
    if (plan.params.has_zero) {
      std::memset(section + plan.params.ZeroOffset(t, 0), 0, params);
    }
  }
}

void GroupRows::Store(const SequenceStep& step, const ConstRows& input) const {
  StoreSinks(step, input);
  StoreRing(step, input);
}

absl::Span<uint8_t> GroupRows::Section(int position) const {
  return absl::MakeSpan(memory_.Section(slot_, place_, position),
                        codec_.layout().section_bytes);
}

int GroupRows::RingRun(int first, int count) const {
  return std::min(count, place_.ring_tokens - first % place_.ring_tokens);
}

// Positions [first, first + count): where they lie, if they lie there one after
// the other, else in `scratch`.
ConstRows GroupRows::RowsToEncode(int first, int count,
                                  const SequenceStep& step,
                                  const ConstRows& input,
                                  uint16_t* scratch) const {
  if (first >= step.begin) {
    const ConstRows rows = RowsFrom(input, first - step.begin);
    if (mean_ == nullptr) return rows;
    RowsToHalf(rows, count, dim(), scratch, mean_);
    return {scratch, DType::kFloat16, dim()};
  }
  const int end = first + count;
  // Sinks aren't encoded: any number may stand in their rows.
  const int ring_begin = std::max(first, std::min(end, memory_.sink_tokens));
  const int ring_end = std::clamp(step.begin, ring_begin, end);
  if (ring_begin == first && ring_end == end &&
      RingRun(first, count) == count) {
    return {memory_.RingRow(slot_, place_, first), DType::kFloat16, dim()};
  }
  std::fill_n(scratch, (ring_begin - first) * dim(), uint16_t{0});
  ReadRing(ring_begin, ring_end - ring_begin,
           {scratch + (ring_begin - first) * dim(), DType::kFloat16, dim()});
  if (end > ring_end) {
    RowsToHalf(RowsFrom(input, ring_end - step.begin), end - ring_end, dim(),
               scratch + (ring_end - first) * dim(), mean_);
  }
  return {scratch, DType::kFloat16, dim()};
}

void GroupRows::StoreSinks(const SequenceStep& step,
                           const ConstRows& input) const {
  const int end = std::min(memory_.sink_tokens, step.begin + step.count);
  if (step.begin >= end) return;
  RowsToHalf(input, end - step.begin, dim(),
             memory_.SinkRow(slot_, place_, step.begin), mean_);
}

void GroupRows::StoreRing(const SequenceStep& step,
                          const ConstRows& input) const {
  const int end = step.begin + step.count;
  int first = std::max(
      {step.begin, memory_.sink_tokens, Packed(end, step.packed_floor)});
  while (first < end) {
    const int count = RingRun(first, end - first);
    RowsToHalf(RowsFrom(input, first - step.begin), count, dim(),
               memory_.RingRow(slot_, place_, first), mean_);
    first += count;
  }
}

absl::Status GroupRows::Gather(const SequenceStep& state, int first, int count,
                               const MutableRows& out) const {
  if (mean_ == nullptr) return GatherStored(state, first, count, out);
  float scratch[kScratchTokens * kMaxHeadDim];
  for (int done = 0; done < count;) {
    const int rows = std::min(count - done, kScratchTokens);
    absl::Status status = GatherStored(state, first + done, rows,
                                       {scratch, DType::kFloat32, dim()});
    if (!status.ok()) return status;
    AddMean(scratch, mean_, rows, dim(), RowsFrom(out, done));
    done += rows;
  }
  return absl::OkStatus();
}

absl::Status GroupRows::GatherStored(const SequenceStep& state, int first,
                                     int count, const MutableRows& out) const {
  const int end = first + count;
  const int sinks_end = std::clamp(memory_.sink_tokens, first, end);
  const int ring_begin =
      std::clamp(Packed(state.begin, state.packed_floor), sinks_end, end);
  if (first < sinks_end) {
    HalfToRows(memory_.SinkRow(slot_, place_, first), sinks_end - first, dim(),
               out);
  }
  absl::Status status = Decode(sinks_end, ring_begin - sinks_end,
                               RowsFrom(out, sinks_end - first));
  if (!status.ok()) return status;
  ReadRing(ring_begin, end - ring_begin, RowsFrom(out, ring_begin - first));
  return absl::OkStatus();
}

absl::Status GroupRows::Decode(int first, int count,
                               const MutableRows& out) const {
  for (int done = 0; done < count;) {
    const int row = (first + done) % memory_.page_tokens;
    const int rows = std::min(count - done, memory_.page_tokens - row);
    absl::Status status =
        codec_.Decode(Section(first + done), row, rows, RowsFrom(out, done));
    if (!status.ok()) return status;
    done += rows;
  }
  return absl::OkStatus();
}

void GroupRows::ReadRing(int first, int count, const MutableRows& out) const {
  for (int done = 0; done < count;) {
    const int run = RingRun(first + done, count - done);
    HalfToRows(memory_.RingRow(slot_, place_, first + done), run, dim(),
               RowsFrom(out, done));
    done += run;
  }
}

}  // namespace ratequant::kv
