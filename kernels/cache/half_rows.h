#ifndef RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_
#define RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_

#include <cstdint>

#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Conversions between rows of any dtype and the fp16 that sinks and window are
// kept in. fp16 is held as its bits. All round half to even.

// Writes `count` rows of `head_dim` channels to dst[count][head_dim]. Every
// source value must be finite and at most 65504 in magnitude.
void RowsToHalf(const ConstRows& rows, int64_t count, int head_dim,
                uint16_t* dst);

// The other way. Every source value must be finite.
void HalfToRows(const uint16_t* src, int64_t count, int head_dim,
                const MutableRows& rows);

// A value that fp16 can't hold: NaN, Inf, or a magnitude above 65504.
struct BadValue {
  int64_t row = -1;  // -1: there is none
  int channel = 0;
  float value = 0;
};

// The first such value of `count` rows.
BadValue FindBadValue(const ConstRows& rows, int64_t count, int head_dim);

// Row `row` of `rows`, and everything behind it.
ConstRows RowsFrom(const ConstRows& rows, int64_t row);
MutableRows RowsFrom(const MutableRows& rows, int64_t row);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_
