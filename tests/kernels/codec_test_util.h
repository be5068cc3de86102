#ifndef RATEQUANT_TESTS_KERNELS_CODEC_TEST_UTIL_H_
#define RATEQUANT_TESTS_KERNELS_CODEC_TEST_UTIL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/rotation.h"
#include "ratequant/kv/codec.h"

namespace ratequant::kv {

// A deterministic stream of numbers, the same on every machine.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : seed_(seed) {}

  uint64_t Bits() { return SplitMix64(seed_, index_++); }

  // In [0, 1).
  float Uniform() { return static_cast<float>(Bits() >> 40) * 0x1p-24f; }

  // Bell-shaped, variance 1.
  float Normal() {
    float sum = 0.0f;
    for (int i = 0; i < 12; ++i) sum += Uniform();
    return sum - 6.0f;
  }

 private:
  uint64_t seed_;
  uint64_t index_ = 0;
};

// Rows of [tokens, dim] floats: bell-shaped, with a few loud channels, and
// now and then a row that is zero, constant, tiny or huge.
inline std::vector<float> MakeRows(int tokens, int dim, uint64_t seed) {
  TestRandom random(seed);
  std::vector<float> rows(static_cast<size_t>(tokens) * dim);
  for (int t = 0; t < tokens; ++t) {
    const uint64_t kind = random.Bits() % 12;
    for (int c = 0; c < dim; ++c) {
      float x = random.Normal() * (c % 13 == 5 ? 9.0f : 1.0f);
      if (kind == 0) x = c % 2 == 0 ? 0.0f : -0.0f;
      if (kind == 1) x = 1.37f;
      if (kind == 2) x *= 1e-7f;
      if (kind == 3) x = std::clamp(x * 9000.0f, -65000.0f, 65000.0f);
      if (kind == 4) x *= 1e-30f;
      rows[static_cast<size_t>(t) * dim + c] = x;
    }
  }
  return rows;
}

// `values` as elements of `dtype`, with `stride - dim` elements of rubbish
// after each row.
inline std::vector<uint8_t> StoreAs(const std::vector<float>& values,
                                    DType dtype, int dim, int stride) {
  const size_t rows = values.size() / dim;
  std::vector<uint8_t> bytes(rows * stride * ElementSize(dtype), 0x5A);
  for (size_t t = 0; t < rows; ++t) {
    for (int c = 0; c < dim; ++c) {
      StoreElement(values[t * dim + c], bytes.data(), dtype, t * stride + c);
    }
  }
  return bytes;
}

// The quantizers that can store heads of `dim` in pages of `page_tokens`.
inline std::vector<QuantizerSpec> QuantizersFor(int dim, int page_tokens) {
  std::vector<QuantizerSpec> all;
  for (QuantizerSpec spec : DefaultQuantizers()) {
    if (spec.kind == QuantizerKind::kQuarot) spec.seed = 7;
    if (ValidateQuantizer(spec, dim, page_tokens).ok()) all.push_back(spec);
  }
  for (const int group : {8, 16, 64}) {
    QuantizerSpec spec;
    spec.group_size = group;
    if (ValidateQuantizer(spec, dim, page_tokens).ok()) all.push_back(spec);
  }
  return all;
}

inline std::string Describe(const Codec::Options& o) {
  return QuantizerName(o.quantizer) +
         (o.tensor == Tensor::kKey ? " K " : " V ") + std::to_string(o.width) +
         " bits, head_dim " + std::to_string(o.head_dim) + ", page " +
         std::to_string(o.page_tokens);
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_CODEC_TEST_UTIL_H_
