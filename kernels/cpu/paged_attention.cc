#include "kernels/cpu/paged_attention.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/byte_split.h"
#include "kernels/quantizers/limits.h"

namespace ratequant::kv {
namespace {

absl::Status Validate(const PagedAttention::Options& options) {
  if (!IsHeadDim(options.head_dim)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "head_dim is ", options.head_dim, "; supported: multiples of 8 from ",
        kMinHeadDim, " to ", kMaxHeadDim));
  }
  if (options.kv_heads < 1 || options.query_heads < 1 ||
      options.query_heads % options.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "query_heads is ", options.query_heads, " with ", options.kv_heads,
        " KV heads; it must be a multiple of them, at least once"));
  }
  if (options.max_entries < 1 || options.max_rows < 1 ||
      options.max_threads < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_entries is ", options.max_entries, ", max_rows ", options.max_rows,
        ", max_threads ", options.max_threads, "; all must be at least 1"));
  }
  return absl::OkStatus();
}

}  // namespace

// What Run is called with.
struct PagedAttention::Call {
  const LayerMemory& memory;
  absl::Span<const RowPlan> plans;
  absl::Span<const SequenceStep> steps;
  const AttentionParams& params;
  const ConstHeads& queries;
  const MutableHeads& out;

  int group() const { return params.query_heads / memory.kv_heads; }

  // Output row of a HeadAttention's row.
  uint8_t* OutRow(const Item& item, int row) const {
    const SequenceStep& step = steps[item.step];
    const int64_t head =
        static_cast<int64_t>(item.head) * group() + row / step.count;
    const int64_t element =
        head * out.head_stride +
        (step.first_row + row % step.count) * out.row_stride;
    return static_cast<uint8_t*>(out.data) +
           element * static_cast<int64_t>(ElementSize(out.dtype));
  }
};

absl::StatusOr<std::unique_ptr<PagedAttention>> PagedAttention::Create(
    const Options& options) {
  const absl::Status status = Validate(options);
  if (!status.ok()) return status;
  std::unique_ptr<PagedAttention> attention(new PagedAttention(options));
  if (attention->partials_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for partial results of ", options.max_rows,
                     " rows with ", options.query_heads, " query heads"));
  }
  return attention;
}

PagedAttention::PagedAttention(const Options& options)
    : options_(options),
      kernels_(GetAttentionKernels(options.backend)),
      partial_floats_(options.head_dim + 2),
      head_bytes_(options.kv_heads),
      splits_(options.kv_heads),
      unfinished_(
          new std::atomic<int>[static_cast<size_t>(options.max_entries) *
                               options.kv_heads]),
      partials_(hwy::AllocateAligned<float>(options.max_rows *
                                            MaxSplits(options.query_heads) *
                                            partial_floats_)) {
  const int rows = std::min(options.max_rows, kMaxDecodeQueries) *
                   (options.query_heads / options.kv_heads);
  for (int i = 0; i < options.max_threads; ++i) {
    workers_.emplace_back(kernels_, options.head_dim, rows);
  }
  items_.reserve(options.max_entries * MaxSplits(options.kv_heads));
}

PagedAttention::~PagedAttention() = default;

void PagedAttention::Run(const LayerMemory& memory,
                         absl::Span<const RowPlan> plans,
                         absl::Span<const SequenceStep> steps,
                         const AttentionParams& params,
                         const ConstHeads& queries, const MutableHeads& out,
                         LoopRunner* loops) {
  const Call call = {memory, plans, steps, params, queries, out};
  MakeItems(call);
  const int count = static_cast<int>(items_.size());
  std::atomic<int> next{0};
  // An iteration is a worker: its memory is its own, whatever thread it's on.
  const auto work = [&](int worker) {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      RunItem(call, items_[i], workers_[worker]);
    }
  };
  const int workers = std::min({count, options_.max_threads,
                                loops != nullptr ? loops->concurrency() : 1});
  if (workers > 1) {
    loops->Run(workers, work);
  } else if (workers == 1) {
    work(0);
  }
}

void PagedAttention::MakeItems(const Call& call) {
  const LayerMemory& memory = call.memory;
  items_.clear();
  int64_t partial = 0;
  for (size_t s = 0; s < call.steps.size(); ++s) {
    const SequenceStep& step = call.steps[s];
    if (step.count == 0) continue;
    const int window = call.params.sliding_window;
    const int first = window > 0 ? std::max(0, step.begin - window + 1) : 0;
    const int length = step.begin + step.count;
    const PageRange pages = {
        first / memory.page_tokens,
        (length + memory.page_tokens - 1) / memory.page_tokens};
    for (int head = 0; head < memory.kv_heads; ++head) {
      const RowPlan* const plan = &call.plans[head * 2];
      head_bytes_[head] =
          static_cast<int64_t>(pages.end - pages.begin) *
          (plan[0].layout.section_bytes + plan[1].layout.section_bytes);
    }
    SplitByBytes(head_bytes_, absl::MakeSpan(splits_));
    for (int head = 0; head < memory.kv_heads; ++head) {
      const int parts = std::min(splits_[head], pages.end - pages.begin);
      unfinished_[s * memory.kv_heads + head].store(parts,
                                                    std::memory_order_relaxed);
      for (int part = 0; part < parts; ++part) {
        const PageRange range = PartOf(pages, parts, part);
        items_.push_back(
            {.step = static_cast<int>(s),
             .head = head,
             .begin = std::max(first, range.begin * memory.page_tokens),
             .end = std::min(length, range.end * memory.page_tokens),
             .part = part,
             .parts = parts,
             .partial = partial});
      }
      partial += static_cast<int64_t>(parts) * step.count * call.group();
    }
  }
}

void PagedAttention::RunItem(const Call& call, const Item& item,
                             HeadAttention& attention) {
  const SequenceStep& step = call.steps[item.step];
  const int rows = step.count * call.group();
  attention.Run({.memory = &call.memory,
                 .plans = &call.plans[item.head * 2],
                 .step = step,
                 .params = &call.params,
                 .head = item.head},
                call.queries, item.begin, item.end);
  if (item.parts == 1) {
    for (int r = 0; r < rows; ++r) {
      StoreRow(call, item, r, attention.sums(r), attention.sum(r));
    }
    return;
  }
  for (int r = 0; r < rows; ++r) {
    float* const partial =
        PartialRow(item.partial + static_cast<int64_t>(item.part) * rows + r);
    std::copy_n(attention.sums(r), options_.head_dim, partial);
    partial[options_.head_dim] = attention.max(r);
    partial[options_.head_dim + 1] = attention.sum(r);
  }
  std::atomic<int>& unfinished =
      unfinished_[static_cast<size_t>(item.step) * options_.kv_heads +
                  item.head];
  // The last part to finish sees what the others wrote.
  if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    Combine(call, item);
  }
}

void PagedAttention::Combine(const Call& call, const Item& item) {
  const int dim = options_.head_dim;
  const int rows = call.steps[item.step].count * call.group();
  for (int r = 0; r < rows; ++r) {
    // The first part's row takes in the others', always in the same order.
    float* const total = PartialRow(item.partial + r);
    float max = total[dim];
    for (int part = 1; part < item.parts; ++part) {
      max = std::max(max, PartialRow(item.partial + part * rows + r)[dim]);
    }
    const float own = std::exp(total[dim] - max);
    for (int c = 0; c < dim; ++c) total[c] *= own;
    float sum = total[dim + 1] * own;
    for (int part = 1; part < item.parts; ++part) {
      const float* const other = PartialRow(item.partial + part * rows + r);
      const float factor = std::exp(other[dim] - max);
      for (int c = 0; c < dim; ++c) total[c] += other[c] * factor;
      sum += other[dim + 1] * factor;
    }
    StoreRow(call, item, r, total, sum);
  }
}

void PagedAttention::StoreRow(const Call& call, const Item& item, int row,
                              float* sums, float sum) const {
  if (const float* mean = call.memory.MeanOf(item.head * 2 + 1)) {
    for (int c = 0; c < options_.head_dim; ++c) sums[c] += sum * mean[c];
  }
  kernels_.store_row(sums, 1.0f / sum, options_.head_dim,
                     call.OutRow(item, row), call.out.dtype);
}

}  // namespace ratequant::kv
