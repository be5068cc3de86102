#include "kernels/quantizers/gain_table.h"

#include <array>

#include "kernels/quantizers/gain.h"

namespace ratequant::kv {

const float* GainTable() {
  static const std::array<float, kMaxGainCode + 1> kTable = [] {
    std::array<float, kMaxGainCode + 1> table;
    for (int code = 0; code <= kMaxGainCode; ++code) {
      table[code] = GainOfCode(code);
    }
    return table;
  }();
  return kTable.data();
}

}  // namespace ratequant::kv
