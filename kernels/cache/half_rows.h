#ifndef RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_
#define RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_

#include <cstdint>

#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Conversions between rows of any dtype and the fp16 that sinks and window are
// kept in. fp16 is held as its bits. All round half to even.

// Writes `count` rows of `head_dim` channels to dst[count][head_dim], less
// mean[head_dim] if it isn't null. Every source value, and what is left of it,
// must be finite and at most 65504 in magnitude.
void RowsToHalf(const ConstRows& rows, int64_t count, int head_dim,
                uint16_t* dst, const float* mean = nullptr);

// The other way. Every source value must be finite.
void HalfToRows(const uint16_t* src, int64_t count, int head_dim,
                const MutableRows& rows);

// Writes src[count][head_dim] + mean[head_dim] to `rows`, as fp16 at most 65504
// in magnitude. Every sum must be finite.
void AddMean(const float* src, const float* mean, int64_t count, int head_dim,
             const MutableRows& rows);

// A value that fp16 can't hold: NaN, Inf, or a magnitude above 65504.
struct BadValue {
  int64_t row = -1;  // -1: there is none
  int channel = 0;
  float value = 0;
};

// The first of `count` rows that is such a value, or is one less `mean`.
BadValue FindBadValue(const ConstRows& rows, int64_t count, int head_dim,
                      const float* mean = nullptr);

// Row `row` of `rows`, and everything behind it.
ConstRows RowsFrom(const ConstRows& rows, int64_t row);
MutableRows RowsFrom(const MutableRows& rows, int64_t row);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_HALF_ROWS_H_
