#include "services/allocation/solver/baselines.h"

#include <algorithm>

namespace ratequant::allocation {

BaselineSplit SplitBits(Baseline baseline, int64_t total_bits, int groups) {
  const int64_t keys = groups / 2;
  BaselineSplit split;
  if (baseline == Baseline::kUniform) {
    split.key_bits = total_bits / 2;
  } else {
    const int64_t floor = total_bits / groups;
    split.key_bits = floor * keys + std::min(keys, total_bits % groups);
  }
  split.value_bits = total_bits - split.key_bits;
  return split;
}

std::vector<int> BaselineWidths(Baseline baseline, int64_t total_bits,
                                int groups) {
  const BaselineSplit split = SplitBits(baseline, total_bits, groups);
  const int64_t n = groups / 2;
  std::vector<int> widths(groups);
  // After i groups they have i / n of the bits, rounded down for K and up for
  // V: the error is carried from group to group.
  const auto spread = [&](int64_t bits, int64_t carry, int64_t first) {
    const int width = static_cast<int>(bits / n);
    const int64_t rest = bits % n;
    for (int64_t g = first; g < groups; g += 2) {
      carry += rest;
      const bool raised = carry >= n;
      widths[g] = width + (raised ? 1 : 0);
      if (raised) carry -= n;
    }
  };
  spread(split.key_bits, 0, 0);
  spread(split.value_bits, n - 1, 1);
  return widths;
}

}  // namespace ratequant::allocation
