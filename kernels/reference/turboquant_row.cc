#include "kernels/reference/turboquant_row.h"

#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/turboquant.h"

namespace ratequant::kv {

TurboquantRow EncodeTurboquant(const Codebook& codebook, RowScale row_scale,
                               float squared_norm,
                               const std::vector<float>& rotated) {
  const float factor = CodebookFactor(squared_norm, codebook.dim);
  TurboquantRow row;
  std::vector<float> products;
  for (const float y : rotated) {
    const int code = CodebookCode(y * factor, codebook.thresholds.data(),
                                  static_cast<int>(codebook.thresholds.size()));
    row.codes.push_back(static_cast<uint8_t>(code));
    products.push_back(y * codebook.units[code]);
  }
  const float dot = FoldSum(products.data(), codebook.dim);
  row.scale = TurboquantScale(row_scale, squared_norm, dot);
  if (row.scale == 0.0f) row.codes.assign(rotated.size(), 0);
  return row;
}

}  // namespace ratequant::kv
