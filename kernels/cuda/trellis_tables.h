#ifndef RATEQUANT_KERNELS_CUDA_TRELLIS_TABLES_H_
#define RATEQUANT_KERNELS_CUDA_TRELLIS_TABLES_H_

#include "kernels/quantizers/trellis.h"

namespace ratequant::kv::cuda {

// What a trellis of one head_dim and width uses, for kernels; entries beyond
// the width's 2^(width + 1) are 0. Plain data.
struct TrellisTables {
  static constexpr int kEntries = 2 << kMaxTrellisWidth;
  float levels[kEntries];
  float units[kEntries];
  // Those between levels i and i + kTrellisSubsets: of one subset, ascending.
  float middles[kEntries];
};

// `head_dim` is a power of two from 8 to 512, `width` 1 to kMaxTrellisWidth.
TrellisTables MakeTrellisTables(int head_dim, int width);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_TRELLIS_TABLES_H_
