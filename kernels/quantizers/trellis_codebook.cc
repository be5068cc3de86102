#include "kernels/quantizers/trellis_codebook.h"

#include <array>
#include <utility>
#include <vector>

#include "kernels/quantizers/codebook_cache.h"
#include "kernels/quantizers/trellis.h"

namespace ratequant::kv {
namespace {

// The positive levels, fp16 values. Fixed points of Lloyd's algorithm with
// TrellisPath as the encoder, on 8,000 uniform unit vectors in R^128 times
// sqrt(128); the codes of 64 and 256 dimensions lose less than 1% of the mean
// squared error by them. Part of the format. trellis_test.cc checks that every
// level is the mean of what is coded by it.
const std::vector<float>& PositiveLevels(int width) {
  static const std::array<std::vector<float>, kMaxTrellisWidth> kLevels = {{
      {0.33203125f, 1.2080078125f},
      {0.1907958984375f, 0.5927734375f, 1.0625f, 1.853515625f},
      {0.107421875f, 0.314208984375f, 0.5390625f, 0.7744140625f, 1.0400390625f,
       1.3583984375f, 1.7958984375f, 2.474609375f},
      {0.060638427734375f, 0.17578125f, 0.296875f, 0.41455078125f,
       0.54052734375f, 0.66455078125f, 0.79833984375f, 0.93505859375f,
       1.0810546875f, 1.240234375f, 1.4140625f, 1.6162109375f, 1.8515625f,
       2.138671875f, 2.513671875f, 3.083984375f},
  }};
  return kLevels[width - 1];
}

Codebook MakeTrellisCodebook(int dim, int width) {
  const std::vector<float>& positive = PositiveLevels(width);
  std::vector<float> levels;
  for (size_t i = positive.size(); i-- > 0;) levels.push_back(-positive[i]);
  levels.insert(levels.end(), positive.begin(), positive.end());
  return MakeCodebook(dim, width + 1, std::move(levels));
}

}  // namespace

const Codebook& GetTrellisCodebook(int dim, int width) {
  static CodebookCache<kMaxTrellisWidth> cache(&MakeTrellisCodebook);
  return cache.Get(dim, width);
}

}  // namespace ratequant::kv
