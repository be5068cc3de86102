#include "kernels/reference/tcq_row.h"

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/tcq.h"
#include "kernels/quantizers/trellis.h"
#include "kernels/quantizers/turboquant.h"

namespace ratequant::kv {

TcqRow EncodeTcq(const Codebook& codebook, int width, RowScale row_scale,
                 float squared_norm, const std::vector<float>& rotated) {
  const int dim = codebook.dim;
  TcqRow row;
  row.codes.resize(dim);
  row.levels.resize(dim);
  row.gain = TcqGain(squared_norm);
  const float factor = TcqFactor(row.gain, dim);
  std::vector<float> z(rotated);
  for (float& value : z) value *= factor;
  if (IsTrellisWidth(width)) {
    std::vector<uint16_t> decisions(dim);
    TrellisPath(z.data(), 1, dim, width, codebook.levels.data(),
                decisions.data())
        .Find([&](int i, int code, int level) {
          row.codes[i] = static_cast<uint8_t>(code);
          row.levels[i] = static_cast<uint8_t>(level);
        });
  } else {
    for (int i = 0; i < dim; ++i) {
      row.codes[i] = row.levels[i] = static_cast<uint8_t>(
          CodebookCode(z[i], codebook.thresholds.data(),
                       static_cast<int>(codebook.thresholds.size())));
    }
  }
  std::vector<float> products(rotated);
  for (int i = 0; i < dim; ++i) products[i] *= codebook.units[row.levels[i]];
  const float dot = FoldSum(products.data(), dim);
  row.gain = TcqStoredGain(row_scale, squared_norm, row.gain, dot);
  if (row.gain == 0) row.codes.assign(dim, 0);
  return row;
}

int TrellisLevelAt(const uint8_t* row, int width, int dim, int i) {
  unsigned window = 0;
  for (int k = 0; k <= kTrellisMemory; ++k) {
    window |= (CodeAt(row, width, (i + dim - k) % dim) & 1u) << k;
  }
  return kTrellisSubsets * (CodeAt(row, width, i) >> 1) + TrellisSubset(window);
}

}  // namespace ratequant::kv
