#ifndef RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_H_
#define RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_H_

#include <vector>

namespace ratequant::kv {

// The Lloyd-Max codebook of one coordinate of a uniform unit vector in R^dim,
// scaled by sqrt(dim) (TurboQuant; paper Table 8): density proportional to
// (1 - z^2/dim)^((dim-3)/2).
struct Codebook {
  int dim = 0;
  int width = 0;
  std::vector<float> levels;      // [2^width] ascending, fp16 values, symmetric
  std::vector<float> units;       // [2^width] levels / sqrt(dim)
  std::vector<float> thresholds;  // [2^width - 1] midpoints of the levels
};

// The codebook for a power of two from 8 to 512 and a width from 1 to 8.
// Computed on first use for all widths of a dim; thread-safe.
const Codebook& GetCodebook(int dim, int width);

// A codebook from given levels, ascending: for tests against other vectors.
Codebook MakeCodebook(int dim, int width, std::vector<float> levels);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_H_
