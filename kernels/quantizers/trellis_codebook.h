#ifndef RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_CODEBOOK_H_
#define RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_CODEBOOK_H_

#include "kernels/quantizers/codebook.h"

namespace ratequant::kv {

// The levels that trellis-coded rows of `dim` elements and codes of `width`
// bits use: 2^(width + 1), at the scale of sqrt(dim) times a unit vector. `dim`
// is a power of two from 8 to 512, `width` at most kMaxTrellisWidth; the
// returned codebook's width is width + 1. Thread-safe.
const Codebook& GetTrellisCodebook(int dim, int width);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_TRELLIS_CODEBOOK_H_
