#ifndef RATEQUANT_KERNELS_QUANTIZERS_GAIN_TABLE_H_
#define RATEQUANT_KERNELS_QUANTIZERS_GAIN_TABLE_H_

namespace ratequant::kv {

// [256] GainOfCode of every code. Thread-safe.
const float* GainTable();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_GAIN_TABLE_H_
