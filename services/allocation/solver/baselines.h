#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_BASELINES_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_BASELINES_H_

// The maps people use without allocation, for comparison. All functions are
// thread-safe.

#include <cstdint>
#include <vector>

namespace ratequant::allocation {

enum class Baseline {
  kUniform,      // the same average for K and V
  kKCeilVFloor,  // K rounded up, V rounded down
};

// Bits of all K groups and of all V groups together.
struct BaselineSplit {
  int64_t key_bits = 0;
  int64_t value_bits = 0;
};

// Splits `total_bits`, the sum of widths over `groups` groups (an even number,
// half of them K). Uniform: halves, an odd bit to V. K-ceil-v-floor: with B the
// average, K gets floor(B) + min(1, 2 * frac(B)) on average, V the rest.
BaselineSplit SplitBits(Baseline baseline, int64_t total_bits, int groups);

// Widths of all groups, in group order (K and V alternate). The K groups' bits
// are spread evenly from below (2 3 2 3 ... at an average of 2.5), the V
// groups' from above (3 2 3 2 ...), so that every head gets the average.
std::vector<int> BaselineWidths(Baseline baseline, int64_t total_bits,
                                int groups);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_BASELINES_H_
