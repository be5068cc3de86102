#ifndef RATEQUANT_KERNELS_CPU_BYTE_SPLIT_H_
#define RATEQUANT_KERNELS_CPU_BYTE_SPLIT_H_

#include <cstdint>

#include "absl/types/span.h"

// How attention over one sequence is cut into parts that run at the same time.
// Only the sequence and its format decide, so that results don't depend on the
// number of threads or on what else is in the batch.

namespace ratequant::kv {

// Parts are no smaller than this and, on average over the heads, no more.
inline constexpr int64_t kMinSplitBytes = 64 << 10;
inline constexpr int kMaxMeanSplits = 16;

// Parts that SplitByBytes makes of `heads` heads at most.
constexpr int64_t MaxSplits(int heads) {
  return static_cast<int64_t>(heads) * (kMaxMeanSplits + 1);
}

// Into how many parts of about the same number of bytes each head is cut, 1 at
// least: heads of more bits get more parts. head_bytes[h] is what is read of
// head h.
void SplitByBytes(absl::Span<const int64_t> head_bytes, absl::Span<int> splits);

// Pages [begin, end).
struct PageRange {
  int begin = 0;
  int end = 0;
};

// Part `index` of `splits`; parts differ by at most one page.
PageRange PartOf(PageRange pages, int splits, int index);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_BYTE_SPLIT_H_
