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
  // Bits of the first i groups, rounded down for K and up for V.
  const auto down = [n](int64_t bits, int64_t i) { return bits * i / n; };
  const auto up = [n](int64_t bits, int64_t i) {
    return (bits * i + n - 1) / n;
  };
  for (int64_t i = 0; i < n; ++i) {
    widths[2 * i] =
        static_cast<int>(down(split.key_bits, i + 1) - down(split.key_bits, i));
    widths[2 * i + 1] =
        static_cast<int>(up(split.value_bits, i + 1) - up(split.value_bits, i));
  }
  return widths;
}

}  // namespace ratequant::allocation
