#ifndef RATEQUANT_KERNELS_REFERENCE_TCQ_ROW_H_
#define RATEQUANT_KERNELS_REFERENCE_TCQ_ROW_H_

#include <cstdint>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "ratequant/kv/quantizer_spec.h"

namespace ratequant::kv {

struct TcqRow {
  int gain = 0;                 // code
  std::vector<uint8_t> codes;   // of `width` bits
  std::vector<uint8_t> levels;  // indexes of the codebook
};

// Quantizes one row that is already rotated; `squared_norm` is the canonical
// sum of its squares before the rotation, `codebook` that of `width`
// (GetTrellisCodebook or, for a width that has no trellis, GetCodebook).
TcqRow EncodeTcq(const Codebook& codebook, int width, RowScale row_scale,
                 float squared_norm, const std::vector<float>& rotated);

// The index of the codebook that code `i` of a trellis-coded row stands for.
int TrellisLevelAt(const uint8_t* row, int width, int dim, int i);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_TCQ_ROW_H_
