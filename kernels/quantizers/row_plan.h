#ifndef RATEQUANT_KERNELS_QUANTIZERS_ROW_PLAN_H_
#define RATEQUANT_KERNELS_QUANTIZERS_ROW_PLAN_H_

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/section_layout.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/section_layout.h"

namespace ratequant::kv {

// What kernels need to know of a codec, which owns what it points to.
struct RowPlan {
  QuantizerKind kind = QuantizerKind::kRtn;
  bool stores_halves = false;
  bool round_to_half = false;  // Codec::Options
  int width = 0;
  int dim = 0;
  SectionLayout layout;
  ParamLayout params;
  const float* signs = nullptr;        // [dim], where rows are rotated
  const Codebook* codebook = nullptr;  // turboquant and tcq
  RowScale row_scale = RowScale::kL2;  // turboquant and tcq
  // Codes are a trellis' and stand for indexes of the codebook, which have one
  // bit more (trellis.h).
  bool trellis = false;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_ROW_PLAN_H_
