#include "kernels/cuda/trellis_tables.h"

#include <algorithm>

#include "kernels/quantizers/trellis_codebook.h"

namespace ratequant::kv::cuda {

TrellisTables MakeTrellisTables(int head_dim, int width) {
  const Codebook& codebook = GetTrellisCodebook(head_dim, width);
  const int entries = 2 << width;
  TrellisTables tables = {};
  std::copy_n(codebook.levels.begin(), entries, tables.levels);
  std::copy_n(codebook.units.begin(), entries, tables.units);
  for (int i = 0; i + kTrellisSubsets < entries; ++i) {
    tables.middles[i] =
        0.5f * (tables.levels[i] + tables.levels[i + kTrellisSubsets]);
  }
  return tables;
}

}  // namespace ratequant::kv::cuda
