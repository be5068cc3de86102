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
  // [2^width] The thresholds as a binary search tree: node k has the children
  // 2k and 2k + 1; entry 0 isn't used.
  std::vector<float> tree;

  // Entries that can be read from `units` and `tree` at least; those beyond
  // 2^width are 0. Vector code loads whole registers.
  static constexpr int kMinEntries = 16;
};

// The codebook for a power of two from 8 to 512 and a width from 1 to 8.
// Computed on first use for all widths of a dim; thread-safe.
const Codebook& GetCodebook(int dim, int width);

// A codebook from given levels, ascending: for tests against other vectors.
Codebook MakeCodebook(int dim, int width, std::vector<float> levels);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_H_
