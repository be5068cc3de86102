#include "kernels/cpu/byte_split.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace ratequant::kv {

void SplitByBytes(absl::Span<const int64_t> head_bytes,
                  absl::Span<int> splits) {
  const int64_t total =
      std::accumulate(head_bytes.begin(), head_bytes.end(), int64_t{0});
  const int64_t most = static_cast<int64_t>(head_bytes.size()) * kMaxMeanSplits;
  const int64_t part = std::max(kMinSplitBytes, (total + most - 1) / most);
  for (size_t head = 0; head < head_bytes.size(); ++head) {
    splits[head] = static_cast<int>(
        std::max<int64_t>(1, (head_bytes[head] + part - 1) / part));
  }
}

PageRange PartOf(PageRange pages, int splits, int index) {
  const int64_t count = pages.end - pages.begin;
  return {pages.begin + static_cast<int>(count * index / splits),
          pages.begin + static_cast<int>(count * (index + 1) / splits)};
}

}  // namespace ratequant::kv
