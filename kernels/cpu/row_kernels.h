#ifndef RATEQUANT_KERNELS_CPU_ROW_KERNELS_H_
#define RATEQUANT_KERNELS_CPU_ROW_KERNELS_H_

#include <cstdint>

#include "kernels/quantizers/row_plan.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Encodes page rows [first, first + count), whole groups. Returns the page row
// of the first group or row that holds a bad value, after which nothing is
// written, or -1.
using EncodeRowsFunction = int(const RowPlan& plan, const ConstRows& rows,
                               int first, int count, int skip_tokens,
                               uint8_t* section);

// Decodes page rows [first, first + count).
using DecodeRowsFunction = void(const RowPlan& plan, const uint8_t* section,
                                int first, int count, const MutableRows& out);

// For this CPU; null when it has no vectors that they are written for (x86
// before AVX2).
EncodeRowsFunction* GetEncodeRows();
DecodeRowsFunction* GetDecodeRows();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_ROW_KERNELS_H_
